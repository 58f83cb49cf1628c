use super::*;

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        // As an attacker writes it: the library itself rejects such names.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let data: &[u8] = if kind.is_file() {
            content.as_bytes()
        } else {
            b""
        };
        header.set_size(data.len() as u64);
        if !kind.is_file() && !content.is_empty() {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, data).expect("appended");
    }
    builder.into_inner().expect("finished")
}

#[test]
fn nothing_of_a_layer_is_written_outside_its_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use tar::EntryType;
    let file = EntryType::Regular;
    let link = EntryType::Symlink;
    for entries in [
        vec![("../evil", file, "x")],
        vec![("a/../../evil", file, "x")],
        vec![("a", link, "../.."), ("a/evil", file, "x")],
        vec![("a", link, "/"), ("a/evil", file, "x")],
        vec![("evil", EntryType::Link, "../victim")],
        vec![("a", link, ".."), ("evil", EntryType::Link, "a/victim")],
        vec![("a", link, "../victim"), ("a", file, "changed")],
        vec![(".wh...", file, "")],
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let top = directory.path().join("layer");
        std::fs::create_dir(&top).expect("made");
        std::fs::write(directory.path().join("victim"), "whole").expect("written");
        let to = LayerDirectory {
            path: top,
            whiteouts: Whiteouts::Apply,
        };
        let _ = layer(archive(&entries).as_slice(), &to);
        let names: Vec<_> = std::fs::read_dir(directory.path())
            .expect("read")
            .flatten()
            .collect();
        assert_eq!(names.len(), 2, "{entries:?}");
        let victim = std::fs::read_to_string(directory.path().join("victim"));
        assert_eq!(victim.expect("read"), "whole", "{entries:?}");
        assert!(!Path::new("/evil").exists());
    }
}

#[test]
fn whiteouts_take_away_what_is_below() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use tar::EntryType;
    let directory = tempfile::tempdir().expect("a directory");
    let to = LayerDirectory {
        path: directory.path().to_owned(),
        whiteouts: Whiteouts::Apply,
    };
    let below = archive(&[
        ("d", EntryType::Directory, ""),
        ("d/a", EntryType::Regular, "1"),
        ("d/b", EntryType::Regular, "2"),
        ("e", EntryType::Directory, ""),
        ("e/f", EntryType::Regular, "3"),
    ]);
    let (own, inner, _) = layer(below.as_slice(), &to).expect("unpacked");
    assert_eq!(own, inner, "not compressed");
    assert_eq!(own, digest(&below));
    let above = archive(&[
        ("d/.wh.a", EntryType::Regular, ""),
        ("e/.wh..wh..opq", EntryType::Regular, ""),
        ("e/g", EntryType::Regular, "4"),
    ]);
    layer(above.as_slice(), &to).expect("unpacked");
    let there = |path: &str| directory.path().join(path).exists();
    assert_eq!(
        (there("d/a"), there("d/b"), there("e/f"), there("e/g")),
        (false, true, false, true)
    );
}

#[test]
fn a_bomb_is_stopped_and_compression_is_not_trusted() {
    use std::io::Write as _;
    let directory = tempfile::tempdir().expect("a directory");
    let to = LayerDirectory {
        path: directory.path().to_owned(),
        whiteouts: Whiteouts::Apply,
    };
    let zeros = "0".repeat(1 << 20);
    let plain = archive(&[("zeros", tar::EntryType::Regular, &zeros)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("compressed");
    let gzip = gzip.finish().expect("compressed");
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(plain.as_slice(), level);
    assert!(gzip.len() < 100_000 && zstd.len() < 100_000);
    // A sparse file that is almost empty in the archive.
    let mut header = tar::Header::new_gnu();
    header.set_path("sparse").expect("a name");
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o755);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    let gnu = header.as_gnu_mut().expect("GNU's");
    gnu.realsize.copy_from_slice(b"30000000000\0");
    gnu.sparse[0].offset.copy_from_slice(b"30000000000\0");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let mut sparse = header.as_bytes().to_vec();
    sparse.resize(3 * 512, 0);
    let error = bounded(sparse.as_slice(), &to, 1 << 20).expect_err("too much");
    assert!(error.to_string().contains("larger than"), "{error}");
    assert!(!directory.path().join("sparse").exists());
    for packed in [&plain, &gzip, &zstd] {
        let root = rustix::process::geteuid().is_root();
        let error = bounded(packed.as_slice(), &to, 100_000).expect_err("too much");
        assert!(
            !root || error.to_string().contains("larger than"),
            "{error}"
        );
        if root {
            let (own, inner, size) = layer(packed.as_slice(), &to).expect("unpacked");
            let all = (digest(packed), digest(&plain), plain.len() as u64);
            assert_eq!((own, inner, size), all);
        }
        // A truncated layer is invalid.
        assert!(layer(&packed[..packed.len() / 2], &to).is_err());
    }
}
