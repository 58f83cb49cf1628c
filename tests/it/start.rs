//! Everything that prevents a start: each case prints one clear error, has its exit code, and overwrites nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use redb::{ReadableTable as _, TableDefinition, TableHandle as _};
use tokio::process::Command;

use crate::server::{BINARY, Server};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Runs a command that must end by itself.
async fn ended(mut command: Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("it serves, and should have refused")
        .expect("an exit code")
}

fn serve(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--secure-port=0", "--data-dir"])
        .arg(dir);
    command
}

fn compact(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["store", "compact", "--data-dir"]).arg(dir);
    command
}

/// Checks that the program prints one line that says why it does not start, and that contains all `parts`.
async fn refused(what: &str, command: Command, parts: &[&str]) {
    let output = ended(command).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {error}");
    let lines: Vec<&str> = error
        .lines()
        .filter(|line| line.starts_with("reddwarf: "))
        .collect();
    assert_eq!(lines.len(), 1, "{what}: {error}");
    assert!(!error.contains("panicked"), "{what}: {error}");
    for part in parts {
        assert!(lines[0].contains(part), "{what}: no {part:?} in {error}");
    }
    assert!(output.stdout.is_empty(), "{what}: it said that it serves");
}

/// A store written by a server, and its file.
fn written() -> (tempfile::TempDir, Vec<u8>) {
    let dir = Server::start(
        tempfile::tempdir().expect("a directory"),
        &["--controllers=-*"],
    )
    .stop();
    let bytes = std::fs::read(dir.path().join("store.redb")).expect("a store");
    (dir, bytes)
}

#[tokio::test]
async fn a_store_that_is_none_of_ours_or_damaged_is_refused_and_left_alone() {
    let (_made, good) = written();
    let mut head = good.clone();
    head[..64].fill(0xa5);
    let mut middle = good.clone();
    let len = middle.len();
    middle[4096..len - 4096].fill(0xa5);
    let cases: [(&str, Vec<u8>); 5] = [
        (
            "another kind of file",
            b"not a store, whatever its name says".repeat(500),
        ),
        ("a short file", b"redb".to_vec()),
        ("a damaged head", head),
        ("damaged pages", middle),
        ("a file cut off", good[..good.len() / 2].to_vec()),
    ];
    for (what, bytes) in cases {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.redb");
        std::fs::write(&path, &bytes).expect("written");
        let named = path.to_str().expect("a path");
        refused(what, serve(dir.path()), &[named, "damaged", "backup"]).await;
        refused(what, compact(dir.path()), &[named, "damaged", "backup"]).await;
        assert_eq!(
            std::fs::metadata(&path).expect("a file").len(),
            bytes.len() as u64,
            "{what}"
        );
        let now = std::fs::read(&path).expect("a file");
        let changed = now
            .iter()
            .zip(&bytes)
            .filter(|(one, other)| one != other)
            .count();
        assert!(changed <= 1, "{what}: {changed} bytes were overwritten");
    }
}

/// The contents of all tables in a database with names as keys and numbers as values, as text.
fn content(path: &Path) -> BTreeMap<String, Vec<(String, u64)>> {
    let database = redb::Database::open(path).expect("a database");
    let transaction = redb::ReadableDatabase::begin_read(&database).expect("readable");
    transaction
        .list_tables()
        .expect("tables")
        .map(|table| {
            let name = table.name().to_owned();
            let definition: TableDefinition<'_, &str, u64> = TableDefinition::new(&name);
            let rows = transaction.open_table(definition).map_or_else(
                |_| Vec::new(),
                |table| {
                    let rows = table.iter().expect("rows");
                    rows.map(|row| {
                        let (name, value) = row.expect("a row");
                        (name.value().to_owned(), value.value())
                    })
                    .collect()
                },
            );
            (name, rows)
        })
        .collect()
}

#[tokio::test]
async fn a_newer_store_and_the_database_of_another_program_are_refused_and_left_alone() {
    for (what, table, name, parts) in [
        (
            "a newer format",
            META,
            "format",
            &["format 99", "newer reddwarf"][..],
        ),
        (
            "another program's",
            TableDefinition::new("books"),
            "format",
            &["not a reddwarf store", "move it away"],
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store.redb");
        let database = redb::Database::create(&path).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        transaction
            .open_table(table)
            .expect("a table")
            .insert(name, 99)
            .expect("a row");
        transaction.commit().expect("committed");
        drop(database);
        let before = content(&path);
        refused(what, serve(dir.path()), parts).await;
        assert_eq!(content(&path), before, "{what}");
    }
}

#[tokio::test]
async fn directories_ports_keys_and_names_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").expect("written");
    refused(
        "a file as the directory",
        serve(&file),
        &[file.to_str().expect("a path"), "directory"],
    )
    .await;
    refused(
        "beneath a file",
        serve(&file.join("deeper")),
        &["file/deeper", "directory"],
    )
    .await;
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "mine");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let unmade = dir.path().join("unmade");
    let mut command = Command::new(BINARY);
    command
        .args(["serve", "--secure-port", &port, "--data-dir"])
        .arg(&unmade);
    refused("a port in use", command, &[&port, "--secure-port"]).await;
    assert!(!unmade.exists(), "made for nothing");

    let keys = dir.path().join("keys");
    std::fs::create_dir_all(keys.join("pki")).expect("a directory");
    for name in ["ca.crt", "ca.key"] {
        std::fs::write(keys.join("pki").join(name), "mine").expect("written");
    }
    refused(
        "keys that are none",
        serve(&keys),
        &["pki/ca.", "move it away"],
    )
    .await;
    assert_eq!(
        std::fs::read_to_string(keys.join("pki/ca.key")).expect("a file"),
        "mine"
    );

    let mut command = serve(&dir.path().join("unnamed"));
    command.arg("--controllers=nonesuch");
    refused("an unknown controller", command, &["nonesuch"]).await;
}

#[tokio::test]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    let first = Server::start(dir, &["--controllers=-*"]);
    let kubeconfig = std::fs::read(path.join("kubeconfig")).expect("a kubeconfig");
    refused(
        "a second process",
        serve(&path),
        &["store.redb", "in use", "--data-dir"],
    )
    .await;
    refused("compacting it", compact(&path), &["store.redb", "in use"]).await;
    assert_eq!(
        std::fs::read(path.join("kubeconfig")).expect("a kubeconfig"),
        kubeconfig
    );
    let request = http::Request::get("/livez")
        .body(bytes::Bytes::new())
        .expect("a request");
    let answer = first
        .admin()
        .connection()
        .ask(request)
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
}

/// Limits the size of files to this many blocks of 512 bytes, to simulate a full disk.
#[cfg(target_os = "linux")]
fn with_room(blocks: u32, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$@""#))
        .args([
            "sh",
            BINARY,
            "serve",
            "--secure-port=0",
            "--controllers=-*",
            "--data-dir",
        ])
        .arg(dir);
    command
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_without_room_for_a_store_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.redb");
    refused(
        "no room",
        with_room(16, dir.path()),
        &[path.to_str().expect("a path"), "cannot open the store"],
    )
    .await;
}
