//! Cursors over the changes of an engine.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::super::watching::Signal;
use super::super::{Batch, Cursor, Revision, StoreError};
use super::Engine;

pub(super) struct EngineCursor {
    pub(super) store: Arc<Engine>,
    pub(super) signal: Arc<Signal>,
    pub(super) after: Revision,
}

impl Drop for EngineCursor {
    fn drop(&mut self) {
        self.store.state.lock().watching.remove(&self.signal);
    }
}

impl Cursor for EngineCursor {
    fn next<'a>(&'a mut self, max: usize) -> BoxFuture<'a, Result<Batch, StoreError>> {
        Box::pin(async move {
            let batch = self.store.events_after(&self.signal, self.after, max)?;
            self.after = batch.rev;
            Ok(batch)
        })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.signal.told())
    }
}
