//! The gate of the node: the program at its uplinks is attached, and follows the deny list.
//!
//! ```text
//!   file --read--> DenyList --\
//!   own addresses, Nodes, API servers --> Wanted --changes--> DENIED
//!   --uplink, default routes --> interfaces --> from_uplink
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use policy::model::ServiceKey;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    engine::{Engine, State},
    neighbours::Nodes,
    run::stopped,
};
use crate::{
    config::Uplinks,
    datapath::uplink::{Gate as Kernel, Way},
    net::{Node, link, uplink},
    uplink::deny_list::{DenyList, Wanted},
};

/// Pause between two looks at file and interfaces.
const LOOK: Duration = Duration::from_secs(2);
/// Most bytes of a list that are read: a hundred thousand ranges and what is said of them.
const MOST: u64 = 16 << 20;

/// What there is to tell of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GateState {
    /// Interfaces with the program.
    pub attached: BTreeMap<String, Way>,
    /// Ranges that are kept out.
    pub denied: usize,
    /// What stands wrong, in words.
    pub troubles: Vec<String>,
    /// It has been looked after once: what a predecessor has left is taken over.
    pub looked: bool,
}

/// See the module.
pub(super) struct Gate {
    pub(super) node: Node,
    pub(super) uplinks: Uplinks,
    pub(super) list: Option<PathBuf>,
    /// How many entries DENIED takes.
    pub(super) capacity: usize,
    pub(super) pins: PathBuf,
    pub(super) kernel: Kernel,
    pub(super) engine: Engine,
    pub(super) state: watch::Sender<GateState>,
}

impl Gate {
    /// Looks after all of it until `stop` says so. The program stays, as everything that enforces does.
    pub(super) async fn keep(
        mut self,
        own: watch::Receiver<BTreeSet<IpAddr>>,
        nodes: watch::Receiver<Option<Nodes>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut attached: BTreeMap<u32, (String, Way)> = BTreeMap::new();
        let mut list = Listed::default();
        // What the map was brought up to date with, and what was said of it.
        let (mut settled, mut said) = (None, Vec::new());
        let mut denied = self.kernel.refused();
        loop {
            let mut troubles = Vec::new();
            if let Some(path) = &self.list
                && let Err(why) = list.look(path).await
            {
                troubles.push(format!("the deny list cannot be read, and what it said before holds: {why}"));
            }
            let is_read = list.stamp.is_some() || self.list.is_none();
            // Until both are known, what the agent before this one has told holds.
            if let Some(spared) = self.spared(&own, &nodes).await.filter(|_| is_read) {
                let wanted = (list.stamp, spared);
                if settled.as_ref() != Some(&wanted) {
                    said.clear();
                    settled = self.deny(&list.list, &wanted.1, &mut said).then_some(wanted);
                    denied = self.kernel.refused();
                }
            }
            troubles.extend(said.iter().cloned());
            self.attach(&mut attached, &mut troubles).await;
            self.tell(GateState { attached: attached.values().cloned().collect(), denied, troubles, looked: true });
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Whom nobody may keep out. `None`: not all objects are known yet; to deny a range now could cut off a node, or the API server
    /// that is to tell of it.
    async fn spared(
        &self,
        own: &watch::Receiver<BTreeSet<IpAddr>>,
        nodes: &watch::Receiver<Option<Nodes>>,
    ) -> Option<BTreeSet<IpAddr>> {
        let known = nodes.borrow().clone()?;
        let mut spared = own.borrow().clone();
        spared.extend(known.values().flat_map(|node| node.ips.iter().copied()));
        spared.extend(self.engine.ask(api_servers).await.ok()?);
        Some(spared)
    }

    /// Brings the map up to date. False: the kernel has refused.
    fn deny(&mut self, list: &DenyList, spared: &BTreeSet<IpAddr>, said: &mut Vec<String>) -> bool {
        said.extend(list.problems.iter().map(|problem| format!("deny list, {problem}")));
        let wanted = Wanted::of(&list.networks, spared, self.capacity);
        if let Some(first) = wanted.refused.first() {
            said.push(format!(
                "{} of the deny list find no room, {first} first: raise --map-capacity DENIED={}",
                wanted.refused.len(),
                self.capacity
            ));
        }
        let changes = wanted.changes(self.kernel.told());
        if !changes.is_empty() {
            info!(changes = changes.len(), ranges = list.networks.len(), "Deny list brought up to date");
        }
        for change in changes {
            if let Err(error) = self.kernel.write(change) {
                said.push(error.to_string());
                return false;
            }
        }
        true
    }

    /// Sees to it that the program is at the interfaces where it is wanted, and at no others.
    async fn attach(&mut self, attached: &mut BTreeMap<u32, (String, Way)>, troubles: &mut Vec<String>) {
        let wanted = match self.wanted(troubles).await {
            Ok(wanted) => wanted,
            Err(why) => return troubles.push(why),
        };
        attached.retain(|ifindex, _| wanted.contains_key(ifindex));
        for (ifindex, name) in &wanted {
            if attached.contains_key(ifindex) {
                continue;
            }
            match self.kernel.attach(name, *ifindex) {
                Ok(way) => {
                    info!(interface = %name, way = way.name(), "Packets are looked at where they come in");
                    attached.insert(*ifindex, (name.clone(), way));
                }
                Err(error) => troubles.push(error.to_string()),
            }
        }
        if let Err(error) = Kernel::detach_all_but(&self.pins, &attached.keys().copied().collect()) {
            troubles.push(error.to_string());
        }
    }

    /// Interfaces where the program should be, by index.
    async fn wanted(&self, troubles: &mut Vec<String>) -> Result<BTreeMap<u32, String>, String> {
        let names: BTreeSet<String> = match &self.uplinks {
            Uplinks::None => BTreeSet::new(),
            Uplinks::Named(names) => names.clone(),
            Uplinks::Auto => {
                let found = uplink::all(&self.node).await.map_err(|error| error.to_string())?;
                if found.is_empty() {
                    // It may come back in a moment, and until then nobody is to slip in.
                    return Err("there is no default route, so no uplink is known: name it with --uplink; what is attached stays".to_owned());
                }
                found.into_iter().collect()
            }
        };
        let mut wanted = BTreeMap::new();
        for name in names {
            match link::find_link(self.node.netlink(), &name).await {
                Ok(found) => {
                    wanted.insert(found.ifindex, name);
                }
                Err(error) if error.is_not_found() => troubles.push(format!("--uplink: there is no interface {name}")),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(wanted)
    }

    /// Tells and logs what is new.
    fn tell(&self, state: GateState) {
        self.state.send_if_modified(|told| {
            for trouble in state.troubles.iter().filter(|trouble| !told.troubles.contains(trouble)) {
                warn!(%trouble, "At the uplink not all is as it should be");
            }
            let news = *told != state;
            *told = state;
            news
        });
    }
}

/// Who answers for the API server, which may be outside of the cluster: the backends of Service `kubernetes`, which the API
/// server keeps itself.
fn api_servers(state: &State) -> BTreeSet<IpAddr> {
    let key = ServiceKey { namespace: "default".to_owned(), name: "kubernetes".to_owned() };
    let ports = state.services.index.service(&key).map(|view| view.ports).unwrap_or_default();
    ports.iter().flat_map(|port| &port.backends).map(|backend| backend.at.ip()).collect()
}

/// The deny list as it was read last.
#[derive(Default)]
struct Listed {
    list: DenyList,
    /// What told the file of then from another one; `None`: it was never read.
    stamp: Option<Stamp>,
}

/// Changes with a file's content.
type Stamp = (u64, u64, SystemTime);

impl Listed {
    /// Reads the file if it is another one than before.
    async fn look(&mut self, path: &Path) -> Result<(), String> {
        let said = |error: std::io::Error| format!("{}: {error}", path.display());
        let found = tokio::fs::metadata(path).await.map_err(said)?;
        let size = found.len();
        if size > MOST {
            return Err(format!("{} has {size} bytes, more than {MOST}: make ranges wider", path.display()));
        }
        let stamp = (found.ino(), size, found.modified().map_err(said)?);
        if self.stamp != Some(stamp) {
            let bytes = tokio::fs::read(path).await.map_err(said)?;
            // What is no text is a wrong line as others are.
            self.list = DenyList::parse(&String::from_utf8_lossy(&bytes));
            self.stamp = Some(stamp);
        }
        Ok(())
    }
}
