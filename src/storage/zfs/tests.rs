use super::names::*;
use super::*;

#[test]
fn names_of_base_datasets_are_checked_with_the_flag() {
    let config = |pool: &str| StoragePoolConfig::derive(pool, None, None, None).expect("derived");
    for (pool, reason) in [
        ("tank", None),
        ("rpool/reddwarf", None),
        ("/tank", Some("it is not the name of a dataset")),
        ("tank/a b", Some("it is not the name of a dataset")),
        ("tank/a:b", Some("it is not the name of a dataset")),
        ("tank/$(x)", Some("it is not the name of a dataset")),
        ("0tank", Some("begins with a letter")),
    ] {
        let found = check(&config(pool)).map_err(|error| error.to_string());
        match (found, reason) {
            (Ok(()), None) => {}
            (Err(text), Some(reason)) => assert!(text.contains(reason), "{text}"),
            (found, _) => panic!("{pool}: {found:?}"),
        }
    }
    let long = format!("tank/{}/{}", "a".repeat(100), "b".repeat(60));
    let text = check(&config(&long)).expect_err("too long").to_string();
    assert!(text.contains("too long"), "{text}");
}

#[test]
fn commands_are_what_zfs_takes_and_rows_what_it_prints() {
    let names = Names(StoragePoolConfig::derive("tank/rd", None, None, None).expect("fine"));
    let ([first], [data, seal]) = make_home(&names, "u1", Some(1 << 30));
    let root = make_root(
        &names,
        "u1/web-0",
        Some("sha256:0123456789012345678901234567890123456789ffff"),
        Path::new("/tank/rd/zones/pods/u1/c/3"),
    );
    assert_eq!(
        [first, data, seal, root].map(|command| command.to_string()),
        [
            "zfs create -o reddwarf:is=home -o quota=1073741824 tank/rd/zones/pods/u1",
            "zfs create -o reddwarf:is=data -o readonly=off tank/rd/zones/pods/u1/rw",
            "zfs set readonly=on tank/rd/zones/pods/u1",
            "zfs clone -o reddwarf:is=root -o readonly=off -o devices=off -o mountpoint=/tank/rd/zones/pods/u1/c/3 tank/rd/images/layer-0123456789012345678901234567890123456789@ready tank/rd/zones/pods/u1/web-0",
        ]
    );
    assert_eq!(
        rows(
            "tank/a\t/tank/a\tyes\t-\toff\t0\t-\ntank/b\tlegacy\t-\ttank/a@ready\ton\t1024\troot\nnoise\n"
        ),
        [
            Row {
                name: "tank/a".into(),
                mountpoint: Some("/tank/a".into()),
                mounted: true,
                origin: None,
                readonly: false,
                refquota: None,
                mark: None,
            },
            Row {
                name: "tank/b".into(),
                mountpoint: None,
                mounted: false,
                origin: Some("tank/a@ready".into()),
                readonly: true,
                refquota: Some(1024),
                mark: Some("root".into()),
            },
        ]
    );
}
