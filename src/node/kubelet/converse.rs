//! An exec or attach session with a process over channels, independent of the protocol.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::zone::{Ending, ExecSpec, ProcessId, Session, ZoneError, ZoneName, ZoneRuntime};

/// A channel; the numbers are those of the WebSocket protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Input.
    Stdin = 0,
    /// Output.
    Stdout = 1,
    /// Errors.
    Stderr = 2,
    /// The result: a Status.
    Error = 3,
    /// Terminal sizes.
    Resize = 4,
}

impl Channel {
    /// The channel with a number.
    pub fn of(number: u8) -> Option<Self> {
        [
            Channel::Stdin,
            Channel::Stdout,
            Channel::Stderr,
            Channel::Error,
            Channel::Resize,
        ]
        .into_iter()
        .find(|channel| *channel as u8 == number)
    }
}

/// What a client requests.
pub struct Work {
    /// The runtime.
    pub runtime: Arc<dyn ZoneRuntime>,
    /// The zone.
    pub zone: ZoneName,
    /// The process.
    pub id: ProcessId,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether it wants output.
    pub stdout: bool,
    /// Whether it wants errors.
    pub stderr: bool,
    /// Whether there is a terminal.
    pub tty: bool,
    /// The program to run; None to attach to the running process.
    pub exec: Option<ExecSpec>,
}

/// The Status for the end of a program.
fn status(ended: &Result<Ending, ZoneError>) -> Value {
    match ended {
        Ok(Ending { code: 0, .. }) => json!({"metadata": {}, "status": "Success"}),
        Ok(Ending { code, .. }) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: error executing command in container: {error}"),
            "details": {"causes": [{"message": format!("error executing command in container: {error}")}]},
        }),
    }
}

/// Runs the session until the process ends or the client disconnects. `incoming` are the client's bytes, None for a
/// channel that it closed; `outgoing` is sent to it, at the end on [`Channel::Error`].
pub async fn run(
    work: Work,
    mut incoming: mpsc::Receiver<(Channel, Option<Bytes>)>,
    outgoing: mpsc::Sender<(Channel, Bytes)>,
) {
    let opened = match &work.exec {
        Some(exec) => work.runtime.exec(&work.zone, &work.id, exec).await,
        None => work.runtime.attach(&work.zone, &work.id).await,
    };
    let attached = work.exec.is_none();
    let session = match opened {
        Ok(session) => session,
        Err(error) => {
            let text = status(&Err(error)).to_string();
            let _ = outgoing.send((Channel::Error, text.into())).await;
            return;
        }
    };
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        ended,
    } = session;
    let mut pumps = tokio::task::JoinSet::new();
    for (from, channel, wanted) in [
        (stdout, Channel::Stdout, work.stdout),
        (stderr, Channel::Stderr, work.stderr),
    ] {
        let Some(mut from) = from else {
            continue;
        };
        let outgoing = outgoing.clone();
        pumps.spawn(async move {
            let mut buffer = vec![0; 32 * 1024];
            while let Ok(count) = from.read(&mut buffer).await {
                if count == 0 {
                    return;
                }
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if wanted && outgoing.send((channel, bytes)).await.is_err() {
                    return;
                }
            }
        });
    }
    let mut stdin = stdin.filter(|_| work.stdin);
    let feeding = async move {
        while let Some((channel, bytes)) = incoming.recv().await {
            match (channel, bytes) {
                (Channel::Stdin, Some(bytes)) => {
                    if let Some(to) = stdin.as_mut()
                        && to.write_all(&bytes).await.is_err()
                    {
                        stdin = None;
                    }
                }
                (Channel::Stdin, None) => stdin = None,
                (Channel::Resize, Some(bytes)) => {
                    let Ok(size) = serde_json::from_slice::<Value>(&bytes) else {
                        continue;
                    };
                    let part =
                        |key: &str| size[key].as_u64().and_then(|part| u16::try_from(part).ok());
                    if let (Some(width), Some(height)) = (part("Width"), part("Height")) {
                        let _ = resize.send((width, height)).await;
                    }
                }
                _ => {}
            }
        }
    };
    let result = tokio::select! {
        // The rest is dropped on purpose: the process ended, or the client disconnected.
        ended = ended => match ended {
            Ok(result) => result,
            Err(_) => Err(ZoneError::failed("follow", "the process", "the connection broke")),
        },
        // Nothing is sent to a client that disconnected; closing only its input does not end here.
        () = feeding => return,
    };
    while pumps.join_next().await.is_some() {}
    // An attached client learns that the process ended, but not how: that is in the pod's status.
    let text = match (&result, attached) {
        (Ok(_), true) => json!({"metadata": {}, "status": "Success"}),
        _ => status(&result),
    };
    let _ = outgoing
        .send((Channel::Error, text.to_string().into()))
        .await;
}
