//! Frames for a node of an earlier version, which knows fewer features. What it does not know is said as nearly as it can be said.

use super::kinds::{Bind, Features, Frame, FrameRef, LastValue, NodeNews, Offer, Register, SubscribeToLast};
use crate::accepts::Accepts;
use crate::encoding::Encoding;
use crate::headers::Headers;
use crate::payload::Payload;
use crate::value::SUM_LEN;

impl Frame {
    /// The frame for an end that knows these features.
    #[must_use]
    pub fn for_features(mut self, features: Features) -> Self {
        if !features.contains(Features::APPLICATION_CODES)
            && let Some(earlier) = FrameRef::from(&self).without_application_codes()
        {
            self = earlier;
        }
        if !features.contains(Features::HOPS)
            && let Frame::Request(request) = &mut self
        {
            // A request that goes round over such ends is ended by its deadline, as before.
            request.hops = 0;
        }
        if !features.contains(Features::HEADERS)
            && let Some(headers) = self.headers_mut()
        {
            // The action and the handlers run without them, as they would have before.
            *headers = Headers::none();
        }
        if !features.contains(Features::LAST) {
            self = match self {
                // Its handlers hear it as an event, as often as the branch binds.
                Frame::LastValue(LastValue { event, .. }) => Frame::Publish(event),
                Frame::SubscribeToLast(SubscribeToLast { subscribe, .. }) => Frame::Subscribe(subscribe),
                other => other,
            };
        }
        if features.contains(Features::VALUES) {
            return self;
        }
        match &mut self {
            Frame::Bind(bind) => bind.offers.iter_mut().for_each(offer),
            Frame::ExtendedBind(extended) => {
                let Bind { offers, .. } = &mut extended.bind;
                offers.iter_mut().for_each(offer);
            }
            Frame::Register(Register { offers, .. }) => offers.iter_mut().for_each(offer),
            Frame::Online(news) | Frame::Offline(news) => {
                let NodeNews { actions, .. } = news;
                actions.iter_mut().for_each(|(_, accepts)| *accepts = accepts.as_before());
            }
            other => {
                if let Some(error) = other.error_mut() {
                    error.change_data(payload);
                } else if let Some(there) = other.payload_mut() {
                    payload(there);
                }
            }
        }
        self
    }
}

fn offer(offer: &mut Offer) {
    offer.accepts = Accepts::as_before(offer.accepts);
}

/// A reader of before reads MessagePack whose types are not human-readable: it refuses the texts of types that it expects as bytes, and reads all
/// others. Bincode loses its check.
fn payload(payload: &mut Payload) {
    match payload.encoding {
        Encoding::MessagePack => payload.encoding = Encoding::CompactMessagePack,
        Encoding::Bincode => {
            payload.encoding = Encoding::PlainBincode;
            payload.bytes.truncate(payload.bytes.len().saturating_sub(SUM_LEN));
        }
        Encoding::PlainBincode | Encoding::CompactMessagePack | Encoding::Json => {}
    }
}
