//! Protocols without a handshake: a request, an answer, and a session from then on.

use datapath_abi::conntrack::CtState;

use super::{End, Row, Rows};

/// Who has spoken.
#[derive(Clone, Debug)]
pub(super) struct Session {
    answered: bool,
    established: bool,
}

impl Session {
    pub(super) fn first() -> Self {
        Self { answered: false, established: false }
    }

    pub(super) fn next(&mut self, from: End, rows: &mut Rows<'_>) {
        match from {
            End::Responder if self.answered => {}
            End::Responder => {
                self.answered = true;
                self.established = !rows.apply(Row::OneMore);
            }
            End::Initiator => self.established |= self.answered,
        }
    }

    pub(super) fn state(&self) -> CtState {
        match (self.answered, self.established) {
            (false, _) => CtState::New,
            (true, false) => CtState::SynReceived,
            (true, true) => CtState::Established,
        }
    }
}
