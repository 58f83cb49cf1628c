use super::graph::{Graph, Identity, Owner, Seen, Work};

fn identity(uid: &str, namespace: &str) -> Identity {
    Identity {
        api_version: "v1".into(),
        kind: "Thing".into(),
        namespace: namespace.into(),
        name: format!("name-of-{uid}").into(),
        uid: uid.into(),
    }
}

/// `a` owned by `b`, or by `b!` if it blocks b's deletion.
fn seen(uid: &str, owners: &[&str]) -> Seen {
    seen_in("n", uid, owners)
}

fn seen_in(namespace: &str, uid: &str, owners: &[&str]) -> Seen {
    let owners = owners.iter().map(|owner| {
        let uid = owner.trim_end_matches('!');
        Owner {
            api_version: "v1".into(),
            kind: "Thing".into(),
            name: format!("name-of-{uid}").into(),
            uid: uid.into(),
            blocks: owner.ends_with('!'),
        }
    });
    Seen {
        identity: identity(uid, namespace),
        owners: owners.collect(),
        deleting: false,
        orphans: false,
        waits: false,
    }
}

fn told(work: Vec<Work>) -> String {
    let each = work.iter().map(|work| match work {
        Work::Delete(uid) => format!("delete {uid}"),
        Work::Orphan(uid) => format!("orphan {uid}"),
        Work::Tell(told) => format!("tell {} of {}", told.dependent.uid, told.owner.uid),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_alone_has_no_node_and_owners_are_looked_for() {
    let mut graph = Graph::default();
    assert_eq!(told(graph.saw(seen("a", &[]))), "");
    assert_eq!(graph.len(), 0);
    assert_eq!(
        told(graph.saw(seen("b", &["a"]))),
        "delete a",
        "a is only named"
    );
    assert!(!graph.item("a").unwrap().observed);
    let serial = graph.item("a").unwrap().serial;
    assert_eq!(told(graph.confirm(seen("a", &[]), serial + 1)), "");
    assert!(
        !graph.item("a").unwrap().observed,
        "another node of that uid was asked about"
    );
    assert_eq!(told(graph.confirm(seen("a", &[]), serial)), "");
    assert!(graph.item("a").unwrap().observed);
    assert_eq!(told(graph.saw(seen("c", &["a"]))), "", "a is known");
    assert_eq!(told(graph.gone("a")), "delete b, delete c");
    assert!(graph.is_absent(&identity("a", "n")));
    assert_eq!(told(graph.gone("b")), "");
    assert_eq!(told(graph.gone("c")), "");
    assert_eq!(graph.len(), 0);
}

#[test]
fn an_owner_that_does_not_exist_takes_its_dependents_along() {
    let mut graph = Graph::default();
    graph.saw(seen("b", &["a"]));
    assert_eq!(told(graph.missing(&identity("a", "n")).0), "delete b");
    assert!(graph.is_absent(&identity("a", "n")));
    assert_eq!(told(graph.missing(&identity("b", "n")).0), "");
    assert_eq!(graph.len(), 0);
}

#[test]
fn owners_change() {
    let mut graph = Graph::default();
    graph.saw(seen("x", &["a!", "b"]));
    graph.confirm(seen("a", &[]), graph.item("a").unwrap().serial);
    graph.confirm(seen("b", &[]), graph.item("b").unwrap().serial);
    assert_eq!(graph.item("a").unwrap().blocking, [("x".into(), false)]);
    let mut waiting = seen("a", &[]);
    (waiting.deleting, waiting.waits) = (true, true);
    assert_eq!(told(graph.saw(waiting)), "delete x, delete a");
    assert_eq!(
        told(graph.saw(seen("x", &["a", "b"]))),
        "delete a",
        "it no longer blocks"
    );
    assert!(graph.item("a").unwrap().blocking.is_empty());
    assert_eq!(told(graph.saw(seen("x", &["b"]))), "");
    assert!(graph.item("a").unwrap().dependents.is_empty());
    assert_eq!(told(graph.saw(seen("x", &["b", "c"]))), "delete c");
    assert_eq!(told(graph.gone("x")), "");
    assert!(graph.item("b").is_none() && graph.item("c").is_none());
}

#[test]
fn the_last_dependent_wakes_the_owner_that_waits() {
    let mut graph = Graph::default();
    graph.saw(seen("x", &["a!"]));
    let mut waiting = seen("a", &[]);
    (waiting.deleting, waiting.waits) = (true, true);
    assert_eq!(told(graph.saw(waiting.clone())), "delete x, delete a");
    assert_eq!(told(graph.saw(waiting)), "", "only once");
    let item = graph.item("a").unwrap();
    assert!(item.waiting && item.deleting && !item.dependent_waits);
    assert_eq!(told(graph.gone("x")), "delete a");
}

#[test]
fn dependents_are_let_go_once() {
    let mut graph = Graph::default();
    graph.saw(seen("x", &["a"]));
    let mut orphaning = seen("a", &[]);
    (orphaning.deleting, orphaning.orphans) = (true, true);
    assert_eq!(told(graph.saw(orphaning.clone())), "orphan a");
    assert_eq!(told(graph.saw(orphaning)), "");
    let mut alone = seen("b", &[]);
    (alone.deleting, alone.orphans) = (true, true);
    assert_eq!(told(graph.saw(alone)), "orphan b", "without dependents too");
}

#[test]
fn references_that_mean_another_object_are_looked_at() {
    let mut graph = Graph::default();
    graph.saw(seen("x", &["a"]));
    assert_eq!(
        told(graph.saw(seen_in("m", "y", &["a"]))),
        "delete y",
        "a is looked for in n"
    );
    assert_eq!(
        told(graph.saw(seen_in("m", "a", &["b"]))),
        "tell x of a, delete x, delete b",
        "a is in m"
    );
    assert_eq!(told(graph.saw(seen("z", &["a"]))), "tell z of a, delete z");
    assert_eq!(told(graph.saw(seen_in("m", "v", &["a"]))), "");
    assert_eq!(told(graph.saw(seen_in("", "c", &["d"]))), "delete d");
    let cluster = Seen {
        identity: identity("d", ""),
        ..seen("d", &["e"])
    };
    assert_eq!(told(graph.saw(cluster)), "delete e");
    assert_eq!(
        told(graph.saw(seen_in("m", "w", &["d"]))),
        "",
        "cluster-scoped owners own anywhere"
    );
    assert_eq!(told(graph.saw(seen_in("", "f", &["g"]))), "delete g");
    assert_eq!(
        told(graph.saw(seen("h", &["g"]))),
        "delete h",
        "g may be in n, though something outside of namespaces refers to it"
    );
}

#[test]
fn a_missing_owner_that_some_name_otherwise_is_looked_for_there_in_turn() {
    let mut graph = Graph::default();
    let missing = |graph: &mut Graph, namespace: &str| {
        let (work, elsewhere) = graph.missing(&identity("a", namespace));
        (told(work), elsewhere)
    };
    let is = |work: &str, elsewhere| (work.to_owned(), elsewhere);
    graph.saw(seen("x", &["a"]));
    graph.saw(seen_in("m", "y", &["a"]));
    // Work for others is returned at once; the owner itself never is, or it would be looked up endlessly.
    for _ in 0..2 {
        assert_eq!(missing(&mut graph, "n"), is("delete x", true));
        assert_eq!(graph.item("a").unwrap().identity, identity("a", "m"));
        assert_eq!(missing(&mut graph, "m"), is("delete y", true));
        assert_eq!(graph.item("a").unwrap().identity, identity("a", "n"));
    }
    assert_eq!(missing(&mut graph, "n"), is("delete x", true));
    assert_eq!(told(graph.gone("x")), "");
    assert_eq!(missing(&mut graph, "m"), is("delete y", false));
    assert!(graph.item("a").is_none());
    assert_eq!(missing(&mut graph, "m"), is("", false));
}

#[test]
fn a_new_list_tells_what_is_gone() {
    let mut graph = Graph::default();
    graph.saw(seen("x", &["a"]));
    graph.confirm(seen("a", &[]), graph.item("a").unwrap().serial);
    graph.saw(seen("y", &["v"]));
    let work = graph.listed("v1", "Thing", |uid| uid == "x" || uid == "y");
    assert_eq!(told(work), "delete x");
    assert!(
        graph.item("v").is_some(),
        "what is only named was never there"
    );
    assert_eq!(told(graph.listed("v2", "Thing", |_| false)), "");
}
