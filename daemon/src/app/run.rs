//! From configuration to a running agent, and back to nothing but what is in the kernel.
//!
//! ```text
//!   state, pins  --found-->  Planner, Mirror
//!                               |
//!   Directory --batches-->  Engine (thread) --maps--> kernel --ring buffer--> drain --> Pipeline
//!   addresses ------------>     ^      \--Knowledge-------------------------->   |        |
//!                               |                                               names     v
//!   cni.sock --> CniHandler --> Attachments --> net, programs            Observer: api.sock
//!   clock    --> sweep, tombstones, dead sandboxes                       Admin:    api.sock
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use datapath_abi::maps;
use flows::{clock::unix_ns, observer::ObserverConfig, pipeline::Pipeline, record::Node as FlowNode};
use proto::bulkhead::cni::v1 as wire;
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tracing::{error, info, warn};

use super::{
    able,
    admin::{AdminParts, AdminService},
    answers,
    attachments::{Attachments, guard::guard_programs, local_endpoint},
    chores,
    engine::{Engine, Kernel, Services},
    events,
    flows::{Rings, drain, keep_node_labels},
    gate::{Gate, GateState},
    handler::CniHandler,
    identities,
    install::{self, Installation},
    knowledge::Knowledge,
    neighbours::{Neighbours, Overlay},
    relief::Relief,
    serve::{Remote, flow_services},
    sharing,
    source::{self, Register, Source},
    takeover::{Renewal, Taken, check_pools, note_gateways, take_over, tidy_gateways},
};
use crate::{
    cni::Service,
    config::{self, Config, Uplinks},
    datapath::{
        attach::Attacher,
        connections::Connections,
        load::{self, program},
        maps::{Counts, Tables, take_dns, take_events},
        overlay::Overlay as OverlayPrograms,
        predecessor,
        sweep::Sweeper,
        uplink::Gate as Gateway,
    },
    ipam::Pools,
    net::{
        Node, changes, host, masquerade,
        overlay::{self, Family},
        presence::Presence,
        uplink,
    },
    reconcile::{Capacity, Identities, Planner},
    state::{self, Durability, Opened, StateDir},
    telemetry::{self, CniMetrics},
};

/// How long clients may take to finish when the agent stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// MTU of Ethernet (IEEE 802.3), when nothing else is said.
const DEFAULT_MTU: u32 = 1500;
/// What IPv6 needs (RFC 8200, section 5), and the most that a pod's link takes (ETH_MAX_MTU,
/// include/uapi/linux/if_ether.h).
const LEAST_MTU: u32 = 1280;
const MOST_MTU: u32 = 65_535;

/// Runs until `stop` turns true.
pub async fn run(config: Config, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let started = Instant::now();
    prepare_folders(&config)?;
    let boot_id = state::boot_id()?;
    let (state_dir, opened) = StateDir::open(&config.state_dir, Durability::default(), &boot_id)?;
    report_opened(&opened);
    // Before anything on the node is changed: a folder that is not there ends this.
    let (source, batches) = Source::open(&config.objects).await?;
    let ranges = match &config.ranges {
        Some(given) => given.clone(),
        None => tokio::select! {
            ranges = source.ranges(&config.node_name, &state_dir) => ranges?,
            () = stopped(&mut stop) => return Ok(()),
        },
    };
    let pools = Pools::new(&ranges)?;

    // What the kernel can do, and what it holds.
    let node = Node::own().await?;
    let (mode, device) = able::ask(&node, &config).await?;
    let pins = Some(config.pin_dir.as_path());
    let mut tables = Tables::new(load::load_some(pins, &config.capacities, &[program::SWING])?)?;
    let packet = load::load_some(pins, &config.capacities, &[program::FROM_POD, program::TO_POD])?;
    let mut control = load::load_some(pins, &config.capacities, &[program::SWEEP, program::CLOCK])?;
    let rings = Rings { events: take_events(&mut control)?, dns: take_dns(&mut control)? };
    let counts = Arc::new(Mutex::new(Counts::new(&mut control)?));
    let connections = Connections::new(&mut control, &config.capacities)?;
    let sweeper = Sweeper::new(control, config.capacities.of(maps::PENDING))?;
    let mut attacher = Attacher::new(packet, mode, &config.pin_dir)?;
    let mirror = tables.read()?;
    let room = services::Capacity::from_fn(|map| config.capacities.of(map));
    let served = Services::new(services::Index::new(tables.services().read()?, room));

    // The node's network.
    check_pools(&node, &pools, &state_dir, &opened.endpoints).await?;
    note_gateways(&pools, &state_dir)?;
    host::prepare(&node, &pools.gateways()).await?;
    let masquerade = config.masquerade.as_ref().map(|keep| masquerade::Masquerade {
        table: config.nft_table.clone(),
        pools: ranges.clone(),
        keep: keep.clone(),
    });
    // In a cluster not before other nodes are known: connections to their pods would get another address.
    if let (Some(wanted), Source::Directory(_)) = (&masquerade, &source) {
        masquerade::install(&node, wanted).await?;
    }

    // What a predecessor has left: taken over, or undone if it was half done.
    let (allocator, conflicts) = crate::ipam::restore(pools.clone(), &state_dir)?;
    for conflict in conflicts {
        warn!(%conflict, "Address of a record outside of the pools");
    }
    let predecessors = predecessor::find(&config.pin_dir)
        .with_context(|| format!("looking for pins of other versions in {}", config.pin_dir.display()))?;
    let renewal = if predecessors.is_empty() { Renewal::Now } else { Renewal::Later };
    let Taken { records, allocator } =
        take_over(&node, &state_dir, (&mut attacher, renewal), opened.endpoints, allocator, &mirror).await?;
    tidy_gateways(&node, &pools, &state_dir, &records).await?;
    let mut alive: BTreeSet<u32> = records.values().map(|record| record.host_ifindex).collect();
    for protocol in overlay::Protocol::ALL {
        // The overlay's programs go on as pods' do.
        alive.extend(overlay::ifindex(&node, protocol).await?);
    }
    attacher.forget_all_but(&alive);

    // Pure state, and the thread that owns it.
    let capacity = Capacity::from_fn(|map| config.capacities.of(map));
    let known = opened.identities.identities.iter().map(identities::identity_of);
    let identities = match &source {
        Source::Directory(_) => Identities::restore(known, mirror.highest_identity()),
        Source::Kubernetes(_) => {
            let highest = mirror.highest_identity_to(datapath_abi::identity::FIRST_SHARED - 1);
            Identities::restore_beside_shared(known, highest)
        }
    };
    let identities = identities.resume(opened.identities.next);
    let mut planner = Planner::new(config.identity.clone(), ranges, identities, capacity.clone());
    let own = changes::watch_own_addresses(&node).await?;
    planner.set_host_addresses(own.borrow().clone());
    for record in records.values() {
        let identity = mirror.endpoints.get(&record.slot).filter(|found| found.ifindex == record.host_ifindex);
        planner.restore_endpoint(local_endpoint(record), identity.map(|found| found.identity));
    }
    let knowledge = Arc::new(Knowledge::new(config.redaction.clone()));
    let state_dir = Arc::new(state_dir);
    let (engine, thread) = Engine::start(
        planner,
        Kernel { tables, mirror, services: served },
        capacity,
        knowledge.clone(),
        identities::keeper(state_dir.clone(), opened.identities.edition),
        config.overlay.is_some(),
    )?;

    // Flows.
    let flow_node = FlowNode {
        name: config.node_name.clone(),
        cluster: config.cluster_name.clone(),
        labels: BTreeMap::new(),
        epoch: unix_ns(),
    };
    let pipeline = Arc::new(Pipeline::new(Arc::new(flow_node), config.flow_records));
    let remote = match config.flow_api.clone() {
        Some(api) => Some(Remote::bind(api).await?),
        None => None,
    };
    let (tell_peers, peers) = watch::channel(flows::observer::Peers::new());
    let (tell_flow_trouble, flow_trouble) = watch::channel(None);
    let mut observer = flows::Observer::new(
        ObserverConfig {
            version: format!("bulkhead v{}", env!("CARGO_PKG_VERSION")),
            address: format!("unix://{}", config.api_socket().display()),
            ..ObserverConfig::default()
        },
        pipeline.clone(),
    )
    .with_rows(history::rows::of);
    if let Some(settings) = &config.history {
        observer = observer.with_past(Arc::new(history::History::new(settings.folder.clone())));
    }
    if remote.is_some() {
        observer = observer.with_peers(peers);
    }

    let mtu = match config.mtu {
        0 => {
            let found = uplink::find(&node).await?;
            let outer = if found.as_ref().is_some_and(|uplink| uplink.is_v6) { Family::V6 } else { Family::V4 };
            let needed = config.overlay.map_or(0, |overlay| overlay.protocol.overhead(outer));
            let whole = found.map_or(DEFAULT_MTU, |uplink| uplink.mtu);
            whole.saturating_sub(needed).clamp(LEAST_MTU, MOST_MTU)
        }
        given => given,
    };
    let presence = Presence::of(&node).await.context("a socket to look at interfaces")?;
    let way_out = answers::way_out(node.clone());
    let (guarded, gated) = (node.clone(), node.clone());
    let overlay = config.overlay.map(|config::Overlay { protocol, port }| Overlay {
        device: overlay::Device { protocol, port, mtu, mac: overlay::mac_of(&config.node_name) },
        gateways: pools.gateways(),
    });
    let with_neighbours = overlay.is_some() || matches!(source, Source::Kubernetes(_));
    let mut programs = OverlayPrograms::load(&config.pin_dir, &config.capacities)?;
    if overlay.is_none() {
        // As a predecessor may have left it.
        programs.tell(&BTreeMap::new())?;
    }
    let (tell_obstacles, obstacles) = watch::channel(Vec::new());
    let neighbours =
        Neighbours::new(node.clone(), config.node_name.clone(), mtu, masquerade, overlay, programs, tell_obstacles);
    let (tell_gate, gate) = watch::channel(GateState::default());
    let relieved_gate = gate.clone();
    let register = Register::new(engine.clone(), &source);
    let attachments = Arc::new(Attachments::new(
        node,
        engine.clone(),
        state_dir,
        attacher,
        allocator,
        records,
        (device, mtu),
        presence,
    ));
    let conntrack = Arc::new(Mutex::new(None));
    let connections = answers::read_connections(connections);
    let cni_metrics = CniMetrics::default();
    let admin = AdminService::new(AdminParts {
        facts: answers::facts(&config, mode, device, mtu, started),
        engine: Arc::new(engine.clone()),
        source: source.status_receiver(),
        counts: counts.clone(),
        sweep: conntrack.clone(),
        connections: Some(connections.clone()),
        uplink: way_out,
        pools: answers::pool_usage(attachments.clone()),
        pipeline: pipeline.clone(),
        extras: answers::endpoint_extras(attachments.clone()),
        put_back: answers::put_back(attachments.clone()),
        shared: match &source {
            Source::Directory(_) => Arc::new(|| None),
            Source::Kubernetes(kubernetes) => {
                let registry = kubernetes.registry().clone();
                Arc::new(move || Some(registry.figures()))
            }
        },
        obstacles,
        gate,
        flow_trouble,
    });

    let mut tasks = JoinSet::new();
    if let Some(settings) = config.exporters.clone() {
        let options = export::Options { settings, state_dir: config.state_dir.join("export") };
        tasks.spawn(export::Exporters::new(options, pipeline.clone()).run(stop.clone()));
    }
    if let Some(settings) = config.history.clone() {
        tasks.spawn(history::Keeper::new(settings, pipeline.clone()).run(stop.clone()));
    }
    tasks.spawn(drain(rings, counts, pipeline.clone(), knowledge, stop.clone()));
    let (nodes, known_nodes) = watch::channel(None);
    tasks.spawn(source::follow(batches, engine.clone(), nodes, stop.clone()));
    tasks.spawn(keep_node_labels(config.node_name.clone(), pipeline.clone(), known_nodes.clone()));
    if config.uplinks == Uplinks::None {
        // As a predecessor may have left it.
        Gateway::detach_all_but(&config.pin_dir, &BTreeSet::new())?;
        tell_gate.send_modify(|gate| gate.looked = true);
    } else {
        let gate = Gate {
            node: gated,
            uplinks: config.uplinks.clone(),
            list: config.deny_list.clone(),
            capacity: config.capacities.of(maps::DENIED) as usize,
            pins: config.pin_dir.clone(),
            kernel: Gateway::load(&config.pin_dir, &config.capacities)?,
            engine: engine.clone(),
            state: tell_gate,
        };
        tasks.spawn(gate.keep(own.clone(), known_nodes.clone(), stop.clone()));
    }
    if let Some(remote) = remote {
        let name = (config.node_name.clone(), config.cluster_name.clone());
        tasks.spawn(remote.tell_peers(name, own.borrow().clone(), known_nodes.clone(), tell_peers));
        remote.serve(flow_services(&observer), tell_flow_trouble, stop.clone(), &mut tasks);
    }
    if with_neighbours {
        tasks.spawn(neighbours.follow(known_nodes, stop.clone()));
    }
    if let Source::Kubernetes(kubernetes) = &source {
        let registry = kubernetes.registry();
        tasks.spawn(sharing::keep(registry.clone(), engine.clone(), stop.clone()));
        let candidate = kubernetes.candidate(&config.agent_namespace, config.node_name.clone());
        let grace = config.shared_identity_grace;
        tasks.spawn(sharing::tidy(registry.clone(), candidate, engine.clone(), grace, stop.clone()));
        let node = config.node_name.clone();
        tasks.spawn(events::tell(admin.clone(), kubernetes.clone(), node, stop.clone()));
    }
    let installation = Installation::of(&config);
    tasks.spawn(chores::follow_addresses(own, engine.clone(), stop.clone()));
    tasks.spawn(chores::sweep(sweeper, conntrack, config.active_interval, engine.clone(), stop.clone()));
    tasks.spawn(chores::look_after(attachments.clone(), config.gc_interval, stop.clone()));
    let relief = Relief {
        predecessors,
        pin_dir: config.pin_dir.clone(),
        engine: engine.clone(),
        attachments: attachments.clone(),
        gate: relieved_gate,
    };
    let (guarding, end) = (attachments.clone(), stop.clone());
    tasks.spawn(async move {
        // Before that, programs of somebody else are where ours are to be.
        relief.relieve(end.clone()).await;
        guard_programs(guarded, guarding, end).await;
    });
    tasks.spawn(identities::release(engine.clone(), connections, config.identity_grace, stop.clone()));
    let metrics = match config.metrics {
        Some(address) => {
            let server = telemetry::http::serve(address, Arc::new(admin.clone()), cni_metrics.clone()).await;
            Some(server.context("--metrics: choose another address, or `off`")?)
        }
        None => None,
    };

    // The sockets come last: who connects is served.
    let api = listen(&config.api_socket())?;
    let cni = listen(&config.cni_socket())?;
    let handler = CniHandler::new(attachments.clone(), engine.clone(), register, cni_metrics);
    let cni_service = wire::cni_server::CniServer::new(Service::new(Arc::new(handler)));
    let cni_router = Server::builder().add_service(cni_service);
    let api_router = flow_services(&observer).add_service(admin.into_service());
    let (cni_stop, api_stop) = (stop.clone(), stop.clone());
    tasks.spawn(async move {
        let incoming = UnixListenerStream::new(cni);
        if let Err(error) = cni_router.serve_with_incoming_shutdown(incoming, until(cni_stop)).await {
            error!(%error, "CNI server ended");
        }
    });
    tasks.spawn(async move {
        let incoming = UnixListenerStream::new(api);
        if let Err(error) = api_router.serve_with_incoming_shutdown(incoming, until(api_stop)).await {
            error!(%error, "API server ended");
        }
    });
    if let Some(installation) = installation {
        tasks.spawn(install::when_ready(installation, engine.clone(), stop.clone()));
    }
    info!(
        node = %config.node_name, source = %config.source, attach = mode.name(),
        started_in_ms = started.elapsed().as_millis() as u64, "Bulkhead runs"
    );

    stopped(&mut stop).await;
    info!("Stopping: pods keep their network and their rules");
    observer.close();
    if let Some(metrics) = metrics {
        metrics.stop().await;
    }
    let goodbye = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
        tasks.abort_all();
    }
    if let Err(error) = attachments.keep_cursors() {
        warn!(%error, "Addresses handed out last were not written down");
    }
    drop(source);
    engine.stop();
    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    for socket in [config.cni_socket(), config.api_socket()] {
        let _ = fs::remove_file(socket);
    }
    Ok(())
}

pub(super) async fn until(mut stop: watch::Receiver<bool>) {
    stopped(&mut stop).await;
}

/// Waits for the order to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is there to give the order: that is one.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn report_opened(opened: &Opened) {
    for corrupt in &opened.corrupt {
        error!(%corrupt, "State could not be read");
    }
    if !opened.stale.is_empty() {
        info!(endpoints = opened.stale.len(), "Endpoints of an earlier boot forgotten");
    }
}

/// Makes the folders, and mounts a bpffs where the pins are to be if there is none.
fn prepare_folders(config: &Config) -> anyhow::Result<()> {
    fs::create_dir_all(&config.run_dir).with_context(|| format!("--run-dir {}", config.run_dir.display()))?;
    fs::set_permissions(&config.run_dir, fs::Permissions::from_mode(0o755))?;
    let pins = &config.pin_dir;
    if fs::create_dir_all(pins).is_ok() && on_bpffs(pins)? {
        return Ok(());
    }
    let mount_point = Path::new("/sys/fs/bpf");
    if !pins.starts_with(mount_point) {
        bail!(
            "--pin-dir {}: not on a bpffs; mount one there (mount -t bpf bpf {0}), or use a folder below /sys/fs/bpf",
            pins.display()
        );
    }
    if !on_bpffs(mount_point)? {
        rustix::mount::mount("bpf", mount_point, "bpf", rustix::mount::MountFlags::empty(), None)
            .context("mounting a bpffs at /sys/fs/bpf: run as root, or mount one before")?;
        info!("Mounted a bpffs at /sys/fs/bpf");
    }
    fs::create_dir_all(pins).with_context(|| format!("--pin-dir {}", pins.display()))
}

/// Whether a folder lies on a bpffs (BPF_FS_MAGIC, include/uapi/linux/magic.h).
fn on_bpffs(path: &Path) -> anyhow::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let stat = rustix::fs::statfs(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(stat.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Listens at a socket that only root may connect to. One that a dead predecessor left is replaced.
fn listen(path: &PathBuf) -> anyhow::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!("{}: another daemon answers there; stop it, or choose another --run-dir", path.display());
            }
            fs::remove_file(path)?;
        }
        Ok(_) => bail!("{}: is there and is no socket; remove it, or choose another --run-dir", path.display()),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
