//! `peer.Peer`: tells a relay which nodes there are, and what becomes of them.

use std::collections::{BTreeMap, VecDeque};

use futures::stream;
use proto::peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, Tls, peer_server::Peer};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Answers, Observer, convert};

/// Where the flows of a node are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerNode {
    /// `host:port`, or `unix://` and a path.
    pub address: String,
    /// Name in its certificate; `None`: it speaks plain text.
    pub server_name: Option<String>,
}

/// All nodes, by name.
pub type Peers = BTreeMap<String, PeerNode>;

/// What one client has been told, and what it has not.
struct Told {
    peers: watch::Receiver<Peers>,
    cluster: String,
    known: Peers,
    news: VecDeque<ChangeNotification>,
}

impl Told {
    /// What has changed since the last time: who has gone first, so that an address that has moved is free.
    fn look(&mut self) {
        let now = self.peers.borrow_and_update().clone();
        let change = |name: &String, peer: &PeerNode, kind: ChangeNotificationType| ChangeNotification {
            name: convert::name_in_cluster(&self.cluster, name),
            address: peer.address.clone(),
            r#type: kind as i32,
            tls: peer.server_name.clone().map(|server_name| Tls { server_name }),
        };
        let gone = self.known.iter().filter(|(name, _)| !now.contains_key(*name));
        let mut news: VecDeque<_> =
            gone.map(|(name, peer)| change(name, peer, ChangeNotificationType::PeerDeleted)).collect();
        news.extend(now.iter().filter_map(|(name, peer)| match self.known.get(name) {
            None => Some(change(name, peer, ChangeNotificationType::PeerAdded)),
            Some(before) if before != peer => Some(change(name, peer, ChangeNotificationType::PeerUpdated)),
            Some(_) => None,
        }));
        self.news.append(&mut news);
        self.known = now;
    }
}

#[tonic::async_trait]
impl Peer for Observer {
    type NotifyStream = Answers<ChangeNotification>;

    async fn notify(&self, request: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let NotifyRequest {} = request.into_inner();
        let mut told = Told {
            peers: self.peers.clone(),
            cluster: self.pipeline.node().cluster.clone(),
            known: Peers::new(),
            news: VecDeque::new(),
        };
        told.look();
        let answers = stream::unfold(told, |mut told| async move {
            loop {
                if let Some(next) = told.news.pop_front() {
                    return Some((Ok(next), told));
                }
                // Nobody changes it any more: what was said stays.
                if told.peers.changed().await.is_err() {
                    futures::future::pending::<()>().await;
                }
                told.look();
            }
        });
        Ok(Response::new(self.until_closed(answers)))
    }
}
