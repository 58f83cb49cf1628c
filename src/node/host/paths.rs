//! Work on paths of the host that may never answer, as on a server that is away. A system call on such a path cannot be
//! cancelled and keeps its thread: for each path there is at most one, as with upstream's nested pending operations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::blocking::{Broke, blocking};

/// How long to wait for a path.
const PATIENCE: Duration = Duration::from_secs(30);

/// The paths on which work is under way.
pub struct Paths {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    patience: Duration,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            locks: Mutex::default(),
            patience: PATIENCE,
        }
    }
}

impl Paths {
    fn lock_of(&self, path: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.locks.lock();
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        all.entry(path.to_owned()).or_default().clone()
    }

    /// Does work on a path when no other is under way there. `bounded` work is not waited for longer than half a minute;
    /// other work may take as long as it needs once it has begun.
    ///
    /// # Errors
    /// Those of the work; or it cannot begin, or does not end, in time.
    pub(super) async fn at<T: Send + 'static>(
        &self,
        path: &str,
        bounded: bool,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let end = Instant::now() + self.patience;
        let late = |_| format!("{path}: it does not answer");
        let held = timeout_at(end, self.lock_of(path).lock_owned()).await;
        let held = held.map_err(late)?;
        let done = blocking(move || {
            // Until it returns, which may be never.
            let _held = held;
            Ok::<_, Broke>(work())
        });
        let done = match bounded {
            true => timeout_at(end, done).await.map_err(late)?,
            false => done.await,
        };
        done.map_err(|broke| broke.to_string())?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_path_that_does_not_answer_keeps_one_thread() {
        let impatient = Paths {
            patience: Duration::from_millis(1),
            ..Paths::default()
        };
        let (begins, begun) = mpsc::channel();
        let (answers, answer) = mpsc::channel::<()>();
        let answer = Arc::new(Mutex::new(answer));
        let look = || {
            let (begins, answer) = (begins.clone(), answer.clone());
            impatient.at("/away", true, move || {
                let _ = begins.send(());
                let _ = answer.lock().recv();
                Ok(())
            })
        };
        for _ in 0..3 {
            let error = look().await.expect_err("it is away");
            assert_eq!(error, "/away: it does not answer");
        }
        begun.recv().expect("the first one began");
        assert!(begun.try_recv().is_err(), "the others did not begin");
        let patient = Paths::default();
        let other = patient.at("/here", true, || Err::<(), _>("no directory".to_owned()));
        assert_eq!(other.await.expect_err("its own"), "no directory");
        // It is back.
        drop(answers);
        while look().await.is_err() {}
    }
}
