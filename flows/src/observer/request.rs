//! `GetFlowsRequest`, checked. Requests are hostile until they have come through here.

use prost_types::Timestamp;
use proto::observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest};

use crate::filter::{FilterError, FilterSet};

use super::{
    convert::{EXTENSION_TYPE_URL, ExtensionForm},
    mask::{Mask, MaskError},
};

/// A request that cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("first cannot be combined with follow: use number to say how far back to start")]
    FirstAndFollow,
    #[error("{field}: {seconds} s and {nanos} ns is not a time")]
    Time { field: &'static str, seconds: i64, nanos: i32 },
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Mask(#[from] MaskError),
}

/// Where a stream starts and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Range {
    /// 0: no limit.
    pub(super) number: u64,
    pub(super) first: bool,
    pub(super) follow: bool,
    pub(super) since_unix_ns: Option<u64>,
    pub(super) until_unix_ns: Option<u64>,
}

/// What a client wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) range: Range,
    pub(super) filters: FilterSet,
    pub(super) mask: Mask,
    pub(super) form: ExtensionForm,
}

impl TryFrom<GetFlowsRequest> for Query {
    type Error = RequestError;

    fn try_from(request: GetFlowsRequest) -> Result<Self, RequestError> {
        // Nothing that we know travels in `experimental`.
        let GetFlowsRequest {
            number,
            first,
            follow,
            blacklist,
            whitelist,
            since,
            until,
            field_mask,
            experimental: _,
            extensions,
        } = request;
        let typed = extensions.is_some_and(|any| any.type_url == EXTENSION_TYPE_URL);
        Ok(Self {
            form: if typed { ExtensionForm::Typed } else { ExtensionForm::Readable },
            range: range(number, first, follow, since, until)?,
            filters: FilterSet::compile(&whitelist, &blacklist)?,
            mask: Mask::parse(field_mask.as_ref())?,
        })
    }
}

impl TryFrom<GetAgentEventsRequest> for Range {
    type Error = RequestError;

    fn try_from(request: GetAgentEventsRequest) -> Result<Self, RequestError> {
        let GetAgentEventsRequest { number, follow, first, since, until } = request;
        range(number, first, follow, since, until)
    }
}

impl TryFrom<GetDebugEventsRequest> for Range {
    type Error = RequestError;

    fn try_from(request: GetDebugEventsRequest) -> Result<Self, RequestError> {
        let GetDebugEventsRequest { number, follow, first, since, until } = request;
        range(number, first, follow, since, until)
    }
}

fn range(
    number: u64,
    first: bool,
    follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Range, RequestError> {
    if first && follow {
        return Err(RequestError::FirstAndFollow);
    }
    Ok(Range {
        number,
        first,
        follow,
        since_unix_ns: since.map(|time| unix_ns("since", time)).transpose()?,
        until_unix_ns: until.map(|time| unix_ns("until", time)).transpose()?,
    })
}

/// Nanoseconds since 1970; a time before that is 0, one after 2554 the greatest.
fn unix_ns(field: &'static str, time: Timestamp) -> Result<u64, RequestError> {
    let Timestamp { seconds, nanos } = time;
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(RequestError::Time { field, seconds, nanos });
    }
    let Ok(seconds) = u64::try_from(seconds) else { return Ok(0) };
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(nanos.unsigned_abs())))
}
