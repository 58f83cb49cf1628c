use http::StatusCode;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;

use super::*;
use crate::auth::User;
use crate::client::informer::Informer;
use crate::client::{Context, Transport};
use crate::controllers::pods::Pods;

type Answers = fn(request: &str, times: usize) -> Result<Value, &'static str>;

struct World {
    controller: Controller,
    set: StatefulSet,
    pods: Vec<Arc<Pod>>,
    /// The requests, without those about events.
    asked: Arc<Mutex<Vec<String>>>,
    _ends: DropGuard,
}

impl World {
    /// The set `web` of two pods with a claim each, of which `web-0` to `web-2` exist. `answers` decides on a request
    /// like `PUT claim-0`, and gets how often it was sent before; an error is the reason of a refusal.
    fn of(answers: Answers) -> World {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let transport = Transport::new(move |request, _| {
            let name = request.uri().path().rsplit('/').next().unwrap_or_default();
            let name = name.replace("data-web", "claim");
            let said = format!("{} {name}", request.method());
            let answer = match &*name {
                "events" => Ok(json!({})),
                _ => {
                    let mut noted = noted.lock();
                    let times = noted.iter().filter(|known| **known == said).count();
                    noted.push(said.clone());
                    answers(&said, times)
                }
            };
            let (code, body) = match answer {
                Ok(answer) => (200, answer),
                Err(reason) => {
                    let code = if reason == "Conflict" { 409 } else { 403 };
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code});
                    (code, status)
                }
            };
            let body = http_body_util::Full::from(body.to_string()).boxed_unsync();
            let mut response = http::Response::new(body);
            *response.status_mut() = StatusCode::from_u16(code).expect("a code");
            async move { response }
        });
        let (context, ends) = Context::by_hand(transport.client(User::new("test", &[]), "test"));
        let controller = Controller {
            sets: Informer::by_hand(),
            revisions: Informer::by_hand(),
            claims: Informer::by_hand(),
            pods: Pods::in_cache(Informer::by_hand()),
            recorder: context.recorder("statefulset-controller"),
            context,
        };
        for ordinal in 0..3 {
            let claim =
                json!({"metadata": {"name": format!("data-web-{ordinal}"), "namespace": "n"}});
            controller
                .claims
                .put(serde_json::from_value(claim).expect("a claim"));
        }
        let set = json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "set"},
            "spec": {
                "replicas": 2,
                "selector": {},
                "template": {},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"},
            },
        });
        let pod = |ordinal: i32| {
            let name = format!("web-{ordinal}");
            let pod = json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {POD_NAME: name}},
                "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": format!("data-{name}")}}]},
            });
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        World {
            controller,
            set: serde_json::from_value(set).expect("a set"),
            pods: (0..3).map(pod).collect(),
            asked,
            _ends: ends,
        }
    }

    /// What became of a plan, and which writes were tried.
    async fn carry_out(&self, plan: &Plan) -> (Done, Vec<String>) {
        let acts = Acts {
            controller: &self.controller,
            set: &self.set,
            pods: &self.pods,
            current: (None, "old"),
            update: (&self.set.spec.template, "new"),
        };
        let done = acts.carry_out(plan).await;
        let mut asked = self.asked.lock().clone();
        asked.retain(|request| !request.starts_with("GET"));
        (done, asked)
    }
}

fn refused(why: &str) -> Done {
    Done {
        outdated: 0,
        failure: Some(why.to_owned()),
    }
}

/// A claim or a pod as the API has it.
fn there(request: &str) -> Value {
    let name = request.split(' ').nth(1).unwrap_or_default();
    json!({"metadata": {"name": name.replace("claim", "data-web"), "uid": name}})
}

#[tokio::test]
async fn nothing_is_taken_down_while_pods_cannot_be_made() {
    let world = World::of(|request, _| match request {
        "POST pods" => Err("Forbidden"),
        _ => Ok(there(request)),
    });
    let plan = Plan {
        create: vec![(0, true)],
        delete: vec!["web-2".to_owned()],
        outdated: vec!["web-1".to_owned()],
        ..Plan::default()
    };
    let (done, asked) = world.carry_out(&plan).await;
    assert_eq!(
        (done, asked),
        (refused("Forbidden"), vec!["POST pods".to_owned()])
    );
}

#[tokio::test]
async fn a_surplus_pod_stays_until_its_claim_is_its_own() {
    let plan = Plan {
        disown: vec![2],
        delete: vec!["web-2".to_owned()],
        outdated: vec!["web-1".to_owned()],
        ..Plan::default()
    };
    let world = World::of(|request, _| match request {
        "PUT claim-2" => Err("Forbidden"),
        _ => Ok(there(request)),
    });
    let (done, asked) = world.carry_out(&plan).await;
    assert_eq!(
        (done, asked),
        (refused("Forbidden"), vec!["PUT claim-2".to_owned()])
    );
    let world = World::of(|request, times| match request {
        "PUT claim-2" if times == 0 => Err("Conflict"),
        _ => Ok(there(request)),
    });
    let (done, asked) = world.carry_out(&plan).await;
    assert_eq!((done.outdated, done.failure), (1, None));
    assert_eq!(
        asked,
        ["PUT claim-2", "PUT claim-2", "DELETE web-2", "DELETE web-1"],
        "somebody else wrote the claim meanwhile"
    );
}

#[tokio::test]
async fn a_pod_that_cannot_be_repaired_holds_up_those_of_later_batches() {
    let plan = Plan {
        repair: vec![1],
        create: vec![(2, true), (3, true)],
        renew: vec!["web-0".to_owned()],
        delete: vec!["web-4".to_owned()],
        ..Plan::default()
    };
    let all = [
        "POST persistentvolumeclaims",
        "PUT web-1",
        "POST persistentvolumeclaims",
        "POST pods",
        "DELETE web-0",
    ];
    for (policy, tried) in [("OrderedReady", 2), ("Parallel", all.len())] {
        let mut world = World::of(|request, _| match request {
            "PUT web-1" => Err("Invalid"),
            _ => Ok(there(request)),
        });
        world.set.spec.pod_management_policy = Some(policy.to_owned());
        let templates = world.set.spec.volume_claim_templates.iter_mut().flatten();
        for template in templates {
            template.metadata.name = Some("other".to_owned());
        }
        let (done, asked) = world.carry_out(&plan).await;
        assert_eq!(done, refused("Invalid"), "{policy}");
        assert_eq!(asked, all[..tried], "{policy}");
    }
}

#[test]
fn batches_double() {
    let ends = [0, 1, 2, 3, 6, 7].map(|ordinal| end_of_batch(0, ordinal));
    assert_eq!(ends, [1, 3, 3, 7, 7, 15]);
    assert_eq!(end_of_batch(5, 6), 8);
    assert_eq!(end_of_batch(i32::MAX - 1, i32::MAX), i32::MAX);
}
