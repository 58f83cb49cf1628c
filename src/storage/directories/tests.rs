use super::*;

#[tokio::test]
async fn layers_roots_and_volumes_are_made_once_and_removed_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let pool = directory.path().display().to_string();
    let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a pool");
    let engine = Directories::new(&config);
    engine.prepare().await.expect("prepared");
    engine.prepare().await.expect("prepared again");
    let chain =
        "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_owned();
    assert!(
        engine
            .make_root("u/web-0", std::slice::from_ref(&chain))
            .await
            .is_err()
    );
    let layer = engine.begin_layer(None, &chain).await.expect("begun");
    fs::write(layer.path.join("half"), "x").expect("written");
    assert!(
        engine.layers().await.expect("read").is_empty(),
        "not sealed"
    );
    let layer = engine.begin_layer(None, &chain).await.expect("begun anew");
    assert!(!layer.path.join("half").exists());
    let other = "sha256:ff".to_owned();
    let killed = engine.begin_layer(None, &other).await.expect("begun");
    fs::write(killed.path.join("half"), "x").expect("written");
    engine.seal_layer(&chain).await.expect("sealed");
    engine.seal_layer(&chain).await.expect("sealed again");
    assert_eq!(engine.layers().await.expect("read"), [hex(&chain)]);
    engine.sweep_layers().await.expect("swept");
    assert!(!killed.path.exists(), "never finished");
    assert_eq!(engine.layers().await.expect("read"), [hex(&chain)]);
    for _ in 0..2 {
        engine
            .make_root("u/web-0", std::slice::from_ref(&chain))
            .await
            .expect("a root");
    }
    let error = engine.remove_layer(&chain).await.expect_err("in use");
    assert!(error.to_string().contains("u/web-0"), "{error}");
    assert_eq!(engine.layers().await.expect("read").len(), 1);
    for name in ["../x", "", "a//b", "a/.."] {
        assert!(engine.make_root(name, &[]).await.is_err(), "{name:?}");
        assert!(engine.remove_root(name).await.is_err(), "{name:?}");
    }
    assert_eq!(engine.roots().await.expect("read"), ["u/web-0"]);
    engine.remove_root("u/web-0").await.expect("removed");
    engine.remove_root("u/web-0").await.expect("removed again");
    assert!(engine.roots().await.expect("read").is_empty());
    engine.remove_layer(&chain).await.expect("used no more");
    assert!(engine.layers().await.expect("read").is_empty());
    let volume = engine
        .make_volume("pv1", Some(1), None)
        .await
        .expect("a volume");
    fs::write(volume.path.join("data"), "x").expect("written");
    let left = directory.path().join("volumes/.pv2");
    fs::create_dir_all(&left).expect("left by a copy that was killed");
    let copy = engine
        .make_volume("pv2", None, Some("pv1"))
        .await
        .expect("a copy");
    assert_eq!(
        fs::read_to_string(copy.path.join("data")).expect("there"),
        "x"
    );
    engine.remove_volume("pv1").await.expect("removed");
    assert_eq!(engine.volumes().await.expect("read").len(), 1);
    assert!(engine.capacity().await.expect("measured").total > 0);
}

#[tokio::test]
async fn a_volume_that_is_gone_is_not_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let pool = directory.path().join("pool").display().to_string();
    let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a pool");
    let engine = Directories::new(&config).with_notes(directory.path().join("notes"));
    let make = async || engine.make_volume("pv1", None, None).await;
    let volume = make().await.expect("made");
    make().await.expect("there");
    // Stands for a disk that was not mounted after a boot.
    let aside = directory.path().join("unmounted");
    fs::rename(&volume.path, &aside).expect("moved");
    let error = make().await.expect_err("gone").to_string();
    assert!(error.contains("mount the file system"), "{error}");
    assert!(!volume.path.exists());
    let error = engine.remove_volume("pv1").await.expect_err("gone");
    let error = error.to_string();
    assert!(error.contains("mount the file system"), "{error}");
    fs::rename(&aside, &volume.path).expect("moved");
    make().await.expect("there again");
    engine.remove_volume("pv1").await.expect("removed");
    engine.remove_volume("pv1").await.expect("removed already");
    make().await.expect("another volume of the name");
    // Volumes of an earlier version have no notes yet.
    fs::remove_file(directory.path().join("notes/pv1")).expect("removed");
    make().await.expect("there");
    assert!(directory.path().join("notes/pv1").exists());
}

#[tokio::test]
async fn a_removal_that_was_cut_off_is_finished() {
    let directory = tempfile::tempdir().expect("a directory");
    let pool = directory.path().join("pool").display().to_string();
    let config = StoragePoolConfig::derive(&pool, None, None, None).expect("a pool");
    let engine = Directories::new(&config).with_notes(directory.path().join("notes"));
    let note = directory.path().join("notes/pv1");
    for is_left in [true, false] {
        for is_made_again in [true, false] {
            let volume = engine.make_volume("pv1", None, None).await.expect("made");
            fs::write(volume.path.join("data"), "x").expect("written");
            note_removal(&note).expect("noted");
            if !is_left {
                remove_tree(&volume.path).expect("removed");
            }
            if is_made_again {
                let made = engine.make_volume("pv1", None, None).await;
                let made = made.expect("another of the name");
                assert!(names(&made.path).expect("read").is_empty());
                assert_eq!(read_note(&note).expect("read"), Noted::Made);
            }
            engine.remove_volume("pv1").await.expect("removed");
            assert!(!volume.path.exists() && !note.exists());
        }
    }
}
