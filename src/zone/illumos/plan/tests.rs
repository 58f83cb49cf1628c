use super::super::layout::{Brand, Settings};
use super::*;
use crate::net::illumos::{EtherstubConfig, NetworkConfig};
use crate::zone::ZoneSpec;

fn layout() -> Layout {
    let settings = Settings {
        brand: Brand::Lx,
        zones_dataset: "tank/rd/zones".into(),
        zones_directory: "/tank/rd/zones".into(),
        data: "/data".into(),
        sandboxes: [(Brand::Lx, "tank/rd/images/sandbox@ready".to_owned())].into(),
        network: NetworkConfig::Etherstub(EtherstubConfig::of_tests(Some("e1000g0"))),
        kernel_version: "5.10.0".into(),
        sandbox_quota: 64 << 20,
    };
    let spec = ZoneSpec {
        network: super::super::tests::network(1),
        ..crate::zone::tests::zone("rd-u1")
    };
    Layout::of(&spec, &settings, |_| false).expect("a layout")
}

/// The next step, by the beginning of its command; or the message.
fn told(next: &Next) -> String {
    match next {
        Next::Done => "done".into(),
        Next::Wait(_) => "wait".into(),
        Next::Stuck(why) => format!("stuck: {why}"),
        Next::Do(step) => {
            let command = step.command.as_ref().expect("every step has one");
            let mut words = command.arguments.iter();
            let word = words.find(|word| *word != "-z" && *word != "rd-u1");
            let mut told = format!("{} {}", command.tool.name(), word.expect("a word"));
            if let Some((property, _)) = words.next().and_then(|word| word.split_once('=')) {
                told = format!("{told} {property}");
            }
            told
        }
    }
}

#[test]
fn each_state_leads_to_each_goal() {
    use Goal::{Absent, Halted, Installed, Running};
    let layout = layout();
    let link = || VnicRow {
        link: layout.vnic.link.clone(),
        over: layout.vnic.over.clone(),
        mac: layout.vnic.mac.clone(),
        vlan: layout.vnic.vlan,
    };
    let at = |state: HostState| {
        let mut seen = Seen::default();
        seen.zone = Some(seen.row(&layout, state));
        seen
    };
    let plugged = |state| Seen {
        vnic: Some(link()),
        root: Root::Marked,
        ..at(state)
    };
    let with = |root, state| Seen { root, ..at(state) };
    let overdue = |seen: Seen| Seen {
        overdue: true,
        ..seen
    };
    let none = Seen::default;
    use HostState as S;
    #[rustfmt::skip]
    let cases = [
        (Installed, none(), "zonecfg -f"),
        (Installed, at(S::Configured), "zonecfg -f"),
        (Installed, Seen { configured: true, ..at(S::Configured) }, "zoneadm install"),
        (Installed, at(S::Incomplete), "zoneadm uninstall"),
        (Installed, at(S::Installed), "zfs set quota"),
        (Installed, with(Root::Ready, S::Installed), "done"),
        (Installed, with(Root::Marked, S::Installed), "done"),
        // Its processes may have changed its root.
        (Installed, with(Root::Used, S::Installed), "zoneadm uninstall"),
        (Installed, at(S::Running), "done"),
        (Installed, at(S::Down), "done"),
        (Running, none(), "stuck: it is not configured"),
        (Running, at(S::Configured), "zonecfg -f"),
        (Running, at(S::Incomplete), "zoneadm uninstall"),
        (Running, at(S::Unknown), "stuck: its state is not known"),
        (Running, at(S::Mounted), "zoneadm unmount"),
        (Running, with(Root::Used, S::Installed), "zoneadm uninstall"),
        (Running, Seen { configured: true, ..at(S::Configured) }, "zoneadm install"),
        (Running, at(S::Installed), "zfs set quota"),
        (Running, with(Root::Ready, S::Installed), "dladm create-vnic"),
        (Running, Seen { vnic: Some(link()), used: true, ..with(Root::Ready, S::Installed) }, "dladm reset-linkprop"),
        (Running, Seen { vnic: Some(link()), ..with(Root::Ready, S::Installed) }, "zfs set reddwarf:booted"),
        (Running, plugged(S::Installed), "zoneadm boot"),
        (Running, plugged(S::Ready), "zoneadm boot"),
        // Its file systems are mounted: it cannot be reinstalled any more.
        (Running, Seen { vnic: Some(link()), ..with(Root::Used, S::Ready) }, "zoneadm boot"),
        (Running, at(S::Ready), "stuck: it is ready without its link"),
        (Running, plugged(S::Running), "done"),
        (Running, at(S::Running), "done"),
        // Somebody may be working on it; after the timeout that is no longer assumed.
        (Running, plugged(S::ShuttingDown), "wait"),
        (Running, plugged(S::Down), "wait"),
        (Running, overdue(plugged(S::ShuttingDown)), "zoneadm halt"),
        (Running, overdue(plugged(S::Down)), "zoneadm halt"),
        (Running, overdue(plugged(S::Running)), "done"),
        (Running, overdue(plugged(S::Installed)), "zoneadm boot"),
        (Halted, none(), "done"),
        (Halted, plugged(S::Running), "zoneadm halt"),
        (Halted, plugged(S::Ready), "zoneadm halt"),
        (Halted, plugged(S::ShuttingDown), "zoneadm halt"),
        (Halted, plugged(S::Down), "zoneadm halt"),
        (Halted, plugged(S::Mounted), "zoneadm unmount"),
        (Halted, plugged(S::Unknown), "stuck: its state is not known"),
        (Halted, plugged(S::Installed), "dladm delete-vnic"),
        (Halted, at(S::Installed), "done"),
        (Halted, at(S::Incomplete), "done"),
        (Absent, none(), "done"),
        (Absent, Seen { dataset: true, ..none() }, "zfs destroy"),
        (Absent, at(S::Configured), "zonecfg delete"),
        (Absent, at(S::Incomplete), "zoneadm uninstall"),
        (Absent, at(S::Installed), "zoneadm uninstall"),
        (Absent, at(S::Running), "stuck: it is running; halt it first"),
        (Absent, at(S::Down), "stuck: it is down; halt it first"),
    ];
    for (goal, seen, expected) in cases {
        let told = told(&next(goal, &layout, &seen));
        assert_eq!(told, expected, "{goal:?} from {seen:?}");
    }
}

#[test]
fn a_zone_whose_brand_is_made_no_more_boots_as_it_is() {
    let layout = Layout {
        sandbox: None,
        ..layout()
    };
    let mut seen = Seen {
        root: Root::Used,
        ..Seen::default()
    };
    seen.zone = Some(seen.row(&layout, HostState::Installed));
    assert_eq!(next(Goal::Installed, &layout, &seen), Next::Done);
    let boot = told(&next(Goal::Running, &layout, &seen));
    assert_eq!(boot, "dladm create-vnic");
}

#[test]
fn a_link_of_others_is_left_alone() {
    let layout = layout();
    let mut seen = Seen::default();
    seen.zone = Some(seen.row(&layout, HostState::Installed));
    seen.root = Root::Ready;
    seen.vnic = Some(VnicRow {
        link: layout.vnic.link.clone(),
        over: "e1000g0".into(),
        mac: layout.vnic.mac.clone(),
        vlan: 0,
    });
    let boot = told(&next(Goal::Running, &layout, &seen));
    assert!(boot.contains("left alone"), "{boot}");
    assert_eq!(next(Goal::Halted, &layout, &seen), Next::Done);
}

#[test]
fn what_stays_as_no_zone_may_is_halted_when_its_time_is_over() {
    let patience = Patience::default();
    let (hello, change) = (Some(patience.hello), Some(patience.change));
    for (state, answers, expected) in [
        (HostState::Running, true, None),
        (HostState::Running, false, hello),
        (HostState::ShuttingDown, false, change),
        (HostState::Down, true, change),
        (HostState::Ready, false, None),
        (HostState::Installed, false, None),
        (HostState::Incomplete, false, None),
    ] {
        let stays = may_stay(state, answers, &patience).map(|(most, _)| most);
        assert_eq!(stays, expected, "{state:?}, which answers: {answers}");
    }
}
