//! Plays the processes of zones with simulated inits: supervisors that dial the agent and follow its requests, without
//! real processes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::Machine;
use crate::zone::illumos::CONTROL;
use crate::zone::supervisor::{Ask, Hello, Reply, SOCKET, kind, read_frame, write_json};

/// How often to check which zones run, because there are no notifications.
const LOOK: Duration = Duration::from_millis(10);

/// Plays the supervisor of every zone that runs and is not dead, forever.
pub async fn supervise(machine: Machine) {
    let mut serving: HashMap<u64, JoinHandle<()>> = HashMap::new();
    loop {
        if let Ok(host) = machine.state() {
            let alive: BTreeMap<u64, PathBuf> = host
                .zones
                .values()
                .filter(|zone| zone.status.word() == "running" && zone.dead.is_none())
                .filter_map(|zone| {
                    let mut mounts = zone.mounts.iter();
                    let control = mounts.find(|mount| mount.directory == CONTROL)?;
                    Some((zone.id, machine.disk().real(&control.special)))
                })
                .collect();
            serving.retain(|id, task| {
                let stays = alive.contains_key(id) && !task.is_finished();
                if !stays {
                    task.abort();
                }
                stays
            });
            for (id, directory) in alive {
                serving
                    .entry(id)
                    .or_insert_with(|| tokio::spawn(serve(id, directory)));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Dials the agent and follows its requests, until either of them is gone.
async fn serve(id: u64, directory: PathBuf) {
    let Ok(mut stream) = UnixStream::connect(directory.join(SOCKET)).await else {
        return;
    };
    let hello = Hello::Control {
        boot: id.to_string(),
        processes: Vec::new(),
    };
    if write_json(&mut stream, kind::HELLO, &hello).await.is_err() {
        return;
    }
    while let Ok(Some((kind::ASK, payload))) = read_frame(&mut stream).await {
        let Ok(ask) = serde_json::from_slice::<Ask>(&payload) else {
            return;
        };
        let reply = Reply {
            number: ask.number,
            result: Ok(()),
        };
        if write_json(&mut stream, kind::REPLY, &reply).await.is_err() {
            return;
        }
    }
}
