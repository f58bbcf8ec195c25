//! One rtnetlink connection: requests with typed errors, several in one datagram, dumps.
//!
//! The kernel serves the messages of a datagram one after another and goes on after one that failed,
//! so requests that build on each other need one round trip together.

use std::{io, sync::Arc};

use futures::StreamExt;
use rtnetlink::{
    packet_core::{
        ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
        NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    proto::ConnectionHandle,
    sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use tokio::sync::Mutex;

use super::NetError;

/// Port 0: the kernel.
fn kernel() -> SocketAddr {
    SocketAddr::new(0, 0)
}

/// A connection in the namespace it was opened in. The executor drives it until the last clone is
/// dropped.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    /// The kernel makes one list at a time for a socket, and says EBUSY to who asks for another (`__netlink_dump_start`,
    /// net/netlink/af_netlink.c).
    listing: Arc<Mutex<()>>,
}

/// What to do with an object that is there, or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Make it; an error if it is there.
    Create,
    /// Make it, or make it so.
    Replace,
    /// Change or remove it; an error if it is not there.
    Change,
}

impl Mode {
    fn flags(self) -> u16 {
        match self {
            Self::Create => NLM_F_CREATE | NLM_F_EXCL,
            Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Self::Change => 0,
        }
    }
}

/// One request, with the words for its error.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) mode: Mode,
    pub(crate) action: &'static str,
    pub(crate) object: String,
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace. Needs the context of a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let (mut connection, handle, _) = rtnetlink::proto::new_connection::<RouteNetlinkMessage>(NETLINK_ROUTE)?;
        // Acknowledgements and ends of dumps are passed on, so that they can be told from a
        // connection that broke.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        let socket: &mut TokioSocket = connection.socket_mut();
        // An attribute the kernel does not know in a question is an error, not ignored (Linux 4.20).
        socket.socket_mut().set_netlink_get_strict_chk(true)?;
        // Errors come with words, and with the header alone of the message they are about.
        socket.socket_mut().set_ext_ack(true)?;
        socket.socket_mut().set_cap_ack(true)?;
        tokio::spawn(connection);
        Ok(Self { handle, listing: Arc::default() })
    }

    /// Sends one request and waits until it is done.
    pub(crate) async fn change(&self, request: Request) -> Result<(), NetError> {
        self.change_all(vec![request]).await
    }

    /// Sends all requests at once, in order, and waits until the last is done; answers by request.
    /// A request is tried even if one before it failed.
    pub(crate) async fn change_each(&self, requests: Vec<Request>) -> Vec<Result<(), NetError>> {
        let packets: Vec<_> = requests
            .iter()
            .map(|request| {
                let mut packet = NetlinkMessage::from(request.message.clone());
                packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | request.mode.flags();
                packet
            })
            .collect();
        let mut answers = self.handle.request_batch(packets, kernel()).ok();
        let mut results = Vec::with_capacity(requests.len());
        for Request { action, object, .. } in requests {
            let answer = match &mut answers {
                Some(answers) => answers.next().await,
                None => None,
            };
            results.push(match answer.map(|answer| answer.payload) {
                None => Err(NetError::Closed { action, object }),
                Some(NetlinkPayload::Error(error)) if error.code.is_none() => Ok(()),
                Some(NetlinkPayload::Error(error)) => Err(refused(&error, action, object)),
                Some(other) => Err(NetError::Unexpected { action, object, answer: format!("{other:?}") }),
            });
        }
        results
    }

    /// Sends all requests at once, in order; the first error if there is one.
    pub(crate) async fn change_all(&self, requests: Vec<Request>) -> Result<(), NetError> {
        self.change_each(requests).await.into_iter().collect()
    }

    /// Asks about one object.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
        object: String,
    ) -> Result<RouteNetlinkMessage, NetError> {
        let action = "look up";
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST;
        let Ok(mut answers) = self.handle.request(packet, kernel()) else {
            return Err(NetError::Closed { action, object });
        };
        match answers.next().await.map(|answer| answer.payload) {
            None => Err(NetError::Closed { action, object }),
            Some(NetlinkPayload::InnerMessage(answer)) => Ok(answer),
            Some(NetlinkPayload::Error(error)) => Err(refused(&error, action, object)),
            Some(other) => Err(NetError::Unexpected { action, object, answer: format!("{other:?}") }),
        }
    }

    /// Lists objects.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
        objects: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetError> {
        // A list that a change ran across may lack what was there all the time; it is asked for anew.
        const TIMES: usize = 10;
        for _ in 0..TIMES {
            if let Some(found) = self.dump_once(message.clone(), objects).await? {
                return Ok(found);
            }
        }
        let answer = format!("changes ran across it {TIMES} times in a row");
        Err(NetError::Unexpected { action: "list", object: objects.into(), answer })
    }

    /// `None`: interrupted by a change.
    async fn dump_once(
        &self,
        message: RouteNetlinkMessage,
        objects: &'static str,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetError> {
        let action = "list";
        let object = || objects.to_owned();
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let _alone = self.listing.lock().await;
        let Ok(mut answers) = self.handle.request(packet, kernel()) else {
            return Err(NetError::Closed { action, object: object() });
        };
        let mut found = Vec::new();
        let mut interrupted = false;
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => found.push(answer),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                NetlinkPayload::Noop => {}
                NetlinkPayload::Error(error) => return Err(refused(&error, action, object())),
                other => {
                    return Err(NetError::Unexpected { action, object: object(), answer: format!("{other:?}") });
                }
            }
        }
        Err(NetError::Closed { action, object: object() })
    }
}

fn refused(error: &ErrorMessage, action: &'static str, object: String) -> NetError {
    NetError::from_errno(-error.raw_code(), words(&error.header), action, object)
}

/// What the kernel says in an error message besides the errno: after the header of the message it is
/// about come attributes (`enum nlmsgerr_attrs`, include/uapi/linux/netlink.h).
fn words(mut bytes: &[u8]) -> String {
    const HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    bytes = bytes.get(HEADER..).unwrap_or_default();
    while let [l0, l1, k0, k1, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = bytes.get(4..length) else { break };
        if u16::from_ne_bytes([k0, k1]) == NLMSGERR_ATTR_MSG {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_header() {
        let header = [0; 16];
        let message = |attributes: &[Vec<u8>]| words(&[&header[..], &attributes.concat()].concat());
        assert_eq!(message(&[attribute(1, b"too small\0")]), "too small");
        assert_eq!(message(&[attribute(2, b"12345"), attribute(1, b"x\0")]), "x");
        assert_eq!(message(&[attribute(2, b"1234")]), "");
        assert_eq!(message(&[]), "");
    }

    #[test]
    fn bytes_that_are_cut_or_lie_say_nothing() {
        let whole = [vec![0; 16], attribute(1, b"too small\0")].concat();
        for length in 0..whole.len() - 3 {
            assert_eq!(words(&whole[..length]), "", "{length}");
        }
        let lie = |length: u16| words(&[vec![0; 16], length.to_ne_bytes().to_vec(), vec![9; 6]].concat());
        assert_eq!([0, 3, 4, 200].map(lie), ["", "", "", ""]);
    }
}
