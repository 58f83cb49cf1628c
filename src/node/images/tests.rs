use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;

fn image(id: &str, names: &[&str]) -> Image {
    Image {
        id: id.into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        digests: Vec::new(),
        config: RunConfig::default(),
        chains: Vec::new(),
        size: 1,
        loaded: Timestamp::UNIX_EPOCH,
        pulled: false,
        access: None,
    }
}

fn images_in(directory: &Path) -> Images {
    let pool = directory.to_str().expect("text");
    let config = crate::storage::StoragePoolConfig::derive(pool, None, None, None);
    let engine = crate::storage::Directories::new(&config.expect("sound"));
    Images::new(&directory.join("records"), Arc::new(engine))
}

#[test]
fn a_damaged_record_is_set_aside_and_the_others_are_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = images_in(directory.path());
    images.save(image("sha256:aa", &["a"])).expect("recorded");
    let damaged = images.records.join("bb.json");
    std::fs::write(&damaged, "").expect("written");
    // Stands for a file that the system cannot read.
    std::fs::create_dir(images.records.join("cc.json")).expect("made");
    for _ in 0..2 {
        let ids: Vec<_> = images
            .list()
            .expect("read")
            .into_iter()
            .map(|one| one.id)
            .collect();
        assert_eq!(ids, ["sha256:aa"]);
    }
    assert!(!damaged.exists() && damaged.with_extension("damaged").exists());
    let refused = images
        .take_out("sha256:aa")
        .err()
        .map(|error| error.to_string());
    let refused = refused.expect("cc may have its layers");
    assert!(refused.contains("cc.json"), "{refused}");
}

#[test]
fn an_image_that_was_pulled_with_a_secret_is_not_for_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = images_in(directory.path());
    let holder = |name: &str| Holder {
        name: name.into(),
        hash: name.into(),
        ..Holder::default()
    };
    let own = |name: &str| Credentials {
        user: String::new(),
        password: String::new(),
        holder: holder(name),
    };
    let fetched = |access: Option<Access>| {
        let access = access.map(|access| BTreeMap::from([("r/a".to_owned(), access)]));
        let image = image("sha256:aa", &["r/a:1"]);
        let saved = images.save(Image { access, ..image }).expect("recorded");
        images.came_from_registry(saved).expect("recorded")
    };
    let by_hand = fetched(None);
    assert!(by_hand.admits("r/a", &[]));
    let with_one = fetched(Some(Access::Holders(vec![holder("one")])));
    assert!(with_one.admits("r/a", &[&own("one")]));
    assert!(!with_one.admits("r/a", &[&own("two")]) && !with_one.admits("r/a", &[]));
    assert!(
        !with_one.admits("r/b", &[&own("one")]),
        "another repository"
    );
    let with_both = fetched(Some(Access::Holders(vec![holder("two")])));
    assert!(with_both.admits("r/a", &[&own("one")]) && with_both.admits("r/a", &[&own("two")]));
    assert!(fetched(Some(Access::Anyone)).admits("r/a", &[]));
}

#[test]
fn what_several_record_at_once_is_all_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    const WRITERS: usize = 8;
    for round in 0..20 {
        let barrier = std::sync::Barrier::new(WRITERS);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                // Separate handles, as other processes have them: only the files are shared.
                let images = images_in(directory.path());
                let barrier = &barrier;
                scope.spawn(move || {
                    let own = format!("own-{round}-{writer}");
                    barrier.wait();
                    let saved = images.save(image("sha256:a", &[&own]));
                    saved.and_then(|image| images.came_from_registry(image))
                });
            }
        });
    }
    let images = images_in(directory.path());
    let list = images.list().expect("read");
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].names.len(), 20 * WRITERS, "{:?}", list[0].names);
    // A name belongs to one image.
    images
        .save(image("sha256:b", &["own-0-0"]))
        .expect("recorded");
    assert_eq!(
        images.list().expect("read")[0].names.len(),
        20 * WRITERS - 1
    );
}

#[tokio::test]
async fn nothing_is_removed_while_images_are_added() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = images_in(directory.path());
    images.save(image("sha256:aa", &["a"])).expect("saved");
    let first = images.adding().await.expect("the lock");
    let second = images.adding().await.expect("the lock, shared");
    drop(first);
    let refused = images.remove("sha256:aa").await;
    assert!(matches!(refused, Err(ImageError::Adding)), "{refused:?}");
    images.sweep().await.expect("nothing is done");
    assert!(images.find("sha256:aa").expect("a list").is_some());
    drop(second);
    images.remove("sha256:aa").await.expect("removed");
    assert!(images.find("sha256:aa").expect("a list").is_none());
}

#[tokio::test]
async fn only_what_no_pull_uses_is_swept() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = images_in(directory.path());
    let used = pull::Scratch::new(&images.records).expect("a directory");
    let left = images.records.join(".pull-1-1");
    std::fs::create_dir_all(&left).expect("a directory");
    images.sweep().await.expect("swept");
    assert!(used.path.exists() && !left.exists());
}
