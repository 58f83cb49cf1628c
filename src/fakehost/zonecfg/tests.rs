use std::path::Path;

use super::*;
use crate::fakehost::store::IndexState;
use crate::fakehost::xml::{self, Element};

struct Bare {
    file: Vec<u8>,
}

impl Host for Bare {
    fn kernel_state(&self, _zone: &str) -> Option<&'static str> {
        None
    }
    fn has_brand(&self, brand: &str) -> bool {
        matches!(brand, "lx" | "reddwarf" | "ipkg" | "lipkg" | "sparse")
    }
    fn verify_brand(&self, _document: &Element) -> Result<(), String> {
        Ok(())
    }
    fn verify_privileges(&self, _document: &Element) -> Result<(), String> {
        Ok(())
    }
    fn alternate(&self, root: &Path) -> ConfigStore {
        ConfigStore::at(root)
    }
    fn read_file(&self, _path: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.file.clone())
    }
    fn write_file(&self, _path: &Path, _text: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

fn run_file(zone: &str, file: &[u8], flavour: Flavour) -> (Reply, Option<Element>) {
    let root = tempfile::tempdir().unwrap();
    let store = ConfigStore::open(root.path()).unwrap();
    let host = Bare {
        file: file.to_vec(),
    };
    let args: Vec<String> = ["-z", zone, "-f", "FILE"].map(String::from).to_vec();
    let reply = run(&host, &store, flavour, &args, b"");
    let document = store.load(zone).unwrap();
    (reply, document)
}

/// For every recorded case, compares the exit status, whether there is a configuration, the configuration, and the
/// first lines of the messages.
#[test]
fn every_recorded_case_answers_as_the_real_zonecfg_did() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/illumos");
    let text = ["zonecfg.jsonl", "zonecfg-more.jsonl"]
        .map(|file| std::fs::read_to_string(recorded.join(file)).unwrap())
        .concat();
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let zone = case["zone"].as_str().unwrap();
        let file = case["file"].as_str().unwrap();
        for (variant, flavour) in [("omnios", Flavour::Omnios), ("gate", Flavour::Gate)] {
            let Some(expected) = case.get(variant) else {
                continue;
            };
            cases += 1;
            let (reply, document) = run_file(zone, file.as_bytes(), flavour);
            let mut differences = Vec::new();
            if i64::from(reply.code) != expected["exit"].as_i64().unwrap() {
                differences.push(format!("exit {} not {}", reply.code, expected["exit"]));
            }
            if document.is_some() != expected["saved"].as_bool().unwrap() {
                differences.push(format!("saved {}", document.is_some()));
            }
            if let Some(recorded) = expected["xml"].as_str() {
                let recorded = xml::parse(recorded).unwrap();
                if document.as_ref() != Some(&recorded) {
                    differences.push(format!(
                        "document\n{}\nnot\n{}",
                        document.map_or(String::new(), |d| d.to_text()),
                        recorded.to_text()
                    ));
                }
            }
            if let Some(shown) = expected["stdout"].as_str()
                && reply.stdout != shown.as_bytes()
            {
                let got = String::from_utf8_lossy(&reply.stdout);
                differences.push(format!("showed\n{got}not\n{shown}"));
            }
            let stderr = String::from_utf8_lossy(&reply.stderr)
                .replace("\r\n", "\n")
                .replace('\r', "\n");
            let mut lines = stderr.lines();
            for wanted in expected["stderr"].as_array().into_iter().flatten() {
                let wanted = wanted.as_str().unwrap();
                let got = lines.next().unwrap_or("<nothing>");
                if got != wanted {
                    differences.push(format!("said {got:?} not {wanted:?}"));
                }
            }
            if !differences.is_empty() {
                wrong.push(format!("{variant}: {name}: {}", differences.join("; ")));
            }
        }
    }
    println!("{cases} recorded answers, {} differ", wrong.len());
    assert!(cases > 1700, "only {cases} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// As recorded for `-f -`: continues after errors, with their line numbers.
#[test]
fn commands_from_standard_input_are_numbered_where_a_file_was_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let store = ConfigStore::open(root.path()).unwrap();
    let host = Bare { file: Vec::new() };
    let commands = b"info\ncreate\nset pool=SUNWx\nend\nset zonepath=/z/rd1\n";
    let numbered = "On line 1:\nrd1: No such zone configured\nOn line 3:\npool names starting with SUNW are reserved.\nOn line 4:\nThe end command only makes sense in the resource scope.\n";
    for (args, expected) in [
        ("-z rd1 -f -", numbered.to_owned()),
        (
            "-z rd1",
            format!("rd1: No such zone configured\n{numbered}")
                .lines()
                .filter(|l| !l.starts_with("On line"))
                .map(|l| format!("{l}\n"))
                .collect(),
        ),
    ] {
        let reply = run(&host, &store, Flavour::Omnios, &words(args), commands);
        assert_eq!(String::from_utf8_lossy(&reply.stderr), expected, "{args}");
        assert_eq!(reply.code, exit::ERROR, "{args}");
        assert!(store.remove("rd1").unwrap(), "{args}");
    }
}

/// `-R`: zonepaths are shown with the alternate root, and stored without it.
#[test]
fn another_root_has_configurations_of_its_own() {
    let here = tempfile::tempdir().unwrap();
    let own = ConfigStore::open(&here.path().join("own")).unwrap();
    let root = here.path().join("other");
    let run = |file: &str| {
        let file = file.replace("ROOT", &root.to_string_lossy()).into_bytes();
        let args = words(&format!("-R {} -z rd1 -f FILE", root.display()));
        let reply = run(&Bare { file }, &own, Flavour::Omnios, &args, b"");
        let text = [reply.stdout, reply.stderr].concat();
        (reply.code, String::from_utf8_lossy(&text).into_owned())
    };
    let create = "create -b\nset brand=lx\nset zonepath=ROOT/z/rd1\n";
    let fails = |file: &str, code: i32, why: &str| {
        let (got, said) = run(file);
        assert!(got == code && said.contains(why), "{got} {said}, not {why}");
    };
    fails(create, exit::USAGE, "root path must be a directory");
    std::fs::create_dir(&root).unwrap();
    fails(
        create,
        exit::ERROR,
        "Could not access zone configuration store",
    );
    let other = ConfigStore::open(&root).unwrap();
    fails(create, exit::ERROR, "SUNWblank: No such zone configured");
    let template = doc::template("SUNWblank", "blank", Flavour::Omnios).unwrap();
    let text = ConfigStore::text(&template);
    std::fs::write(other.document_path("SUNWblank"), text).unwrap();
    fails(create, exit::ERROR, "rd1: Problem updating index file");
    std::fs::create_dir_all(root.join("var/run")).unwrap();
    fails(
        "create -b\nset zonepath=/z/rd1\n",
        exit::ERROR,
        "Bad document property",
    );
    // The check considers the alternate root alone a zonepath, so what preceded the error is saved.
    assert!(other.remove("rd1").unwrap());
    assert_eq!(run(create), (exit::OK, String::new()));
    let path = |store: &ConfigStore| {
        let kept = store.load("rd1").unwrap();
        kept.map(|d| d.attr_or_empty("zonepath").to_owned())
    };
    assert_eq!((path(&own), path(&other)), (None, Some("/z/rd1".into())));
    let told = format!("zonepath: {}/z/rd1\n", root.display());
    assert_eq!(run("info zonepath\n"), (exit::OK, told));
    other.set_state("rd1", IndexState::Installed, None).unwrap();
    assert_eq!(run("set -F zonepath=ROOT/y\n"), (exit::OK, String::new()));
    assert_eq!(path(&other), Some("/y".into()));
}

/// The index always has the global zone's own path, whatever its configuration.
#[test]
fn the_global_zone_is_in_the_index_once() {
    let (reply, document) = run_file("global", b"set max-lwps=1000\n", Flavour::Omnios);
    assert_eq!(reply.code, exit::OK);
    assert!(document.is_some());
    let root = tempfile::tempdir().unwrap();
    let store = ConfigStore::open(root.path()).unwrap();
    store.save(&document.unwrap(), true).unwrap();
    let index = std::fs::read_to_string(root.path().join("etc/zones/index")).unwrap();
    assert_eq!(index.matches("global:").count(), 1, "{index}");
}
