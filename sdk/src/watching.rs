use std::time::Duration;

use buffa::Message;
use buffa::view::MessageView;
use connectrpc::{HasMessageView, JsonDeserialize, JsonSerialize, Spec};
use futures::StreamExt as _;
use hydrant_contracts::Error;
use hydrant_runtime::Backoff;

use crate::client::{Events, Hydrant, is_refusal};

/// A stream of the node that is opened again whenever it breaks. The node begins every stream with
/// all that there is, so nothing is missed in between but steps on the way.
pub(crate) struct Watching<Req, Event> {
    hydrant: Hydrant,
    spec: Spec,
    request: Req,
    events: Option<Events<Event>>,
    backoff: Backoff,
}

impl<Req, Event> Watching<Req, Event>
where
    Req: Message + JsonSerialize + Clone,
    Event: Message + HasMessageView + JsonDeserialize + Send + 'static,
    Event::View<'static>: MessageView<'static, Owned = Event> + Send,
{
    pub(crate) fn new(hydrant: Hydrant, spec: Spec, request: Req) -> Self {
        Self {
            hydrant,
            spec,
            request,
            events: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
        }
    }

    /// The next event. Fails only when the node refuses the watch itself. Dropping the future
    /// loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let error = match &mut self.events {
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Some(events) => match events.next().await {
                    Some(Ok(event)) => {
                        self.backoff.reset();
                        return Ok(event);
                    }
                    Some(Err(error)) => error,
                    None => crate::registration::stream_ended(),
                },
            };
            self.events = None;
            if is_refusal(&error) {
                return Err(error);
            }
            tracing::debug!(%error, watch = self.spec.procedure, "the watch broke; opening it again");
            tokio::time::sleep(self.backoff.next_wait()).await;
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let events = self.hydrant.node_stream(self.spec, self.request.clone());
        self.events = Some(events.await?);
        Ok(())
    }
}
