//! Puts the objects of [`World`] into the API server, and keeps them there.

use std::time::{Duration, Instant};

use ::tests::cluster::Cluster;
use anyhow::{Context as _, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::{Api, Call},
    interrupt,
    meter::Meter,
    say,
    world::{self, World},
};

/// How often fake nodes say that they live: the controller takes them for dead after 50 s.
const RENEWAL: Duration = Duration::from_secs(15);
/// How long controllers and daemons may take to have worked through it all.
const PATIENCE: Duration = Duration::from_secs(900);

/// Makes all of it; returns when every daemon has it in force and every Service its endpoints. Real pods of `World`'s
/// namespaces can be made then.
pub(crate) fn make(api: &Api, cluster: &Cluster, world: World, meters: &[Meter]) -> anyhow::Result<()> {
    namespaces(api, world)?;
    nodes(api, world)?;
    let collection = |namespace: &str, kind: &str| format!("/api/v1/namespaces/{namespace}/{kind}");
    say(&format!("{} pods", world.pods));
    let create = |pod| Call::create(collection(&world.namespace_of(pod), "pods"), world.pod(pod));
    api.all("pods", (0..world.pods).map(create).collect())?;
    let status = |pod| {
        let path = collection(&world.namespace_of(pod), "pods");
        Call::merge(format!("{path}/{}/status", world::pod_name(pod)), World::pod_status(pod))
    };
    api.all("addresses of pods", (0..world.pods).map(status).collect())?;
    say(&format!("{} Services", world.services));
    let create = |index| Call::create(collection(&world.namespace_of(index), "services"), world.service(index));
    api.all("Services", (0..world.services).map(create).collect())?;
    say(&format!("{} policies", world.policies));
    let create = |index| {
        let namespace = world.namespace_of(index);
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies");
        Call::create(path, world.policy(index))
    };
    api.all("policies", (0..world.policies).map(create).collect())?;
    say("controllers and daemons");
    for meter in meters {
        until(&format!("{} has all policies and pods in force", meter.node), || {
            let [pods, policies] = meter.gauges(cluster, ["bulkhead_pods", "bulkhead_policies"])?;
            let (pods, policies) = (pods as usize, policies as usize);
            ensure!(pods >= world.pods && policies >= world.policies, "{pods} pods, {policies} policies");
            Ok(())
        })?;
    }
    let wanted = world.endpoints();
    until("Services have their endpoints", || {
        let found = endpoints(api)?;
        ensure!(found >= wanted, "{found} of {wanted}");
        Ok(())
    })
}

fn namespaces(api: &Api, world: World) -> anyhow::Result<()> {
    say(&format!("{} namespaces", world.namespaces));
    let object = |name: String| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let create = |index| Call::create("/api/v1/namespaces", object(world::namespace(index)));
    let flips = Call::create("/api/v1/namespaces", object(crate::flips::NAMESPACE.to_owned()));
    api.all("namespaces", (0..world.namespaces).map(create).chain([flips]).collect())?;
    // Pods cannot be made before.
    until("namespaces have service accounts", || {
        let accounts = api.ask(Call::get("/api/v1/serviceaccounts?fieldSelector=metadata.name=default"))?;
        let accounts = accounts["items"].as_array().context("a list")?;
        let ours = |it: &&Value| {
            let namespace = it["metadata"]["namespace"].as_str().unwrap_or_default();
            namespace == crate::flips::NAMESPACE || namespace.starts_with("scale-")
        };
        let found = accounts.iter().filter(ours).count();
        ensure!(found == world.namespaces + 1, "{found}");
        Ok(())
    })
}

fn nodes(api: &Api, world: World) -> anyhow::Result<()> {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let count = world.nodes();
    say(&format!("{count} fake nodes"));
    let leases = (0..count).map(|node| Call::create(LEASES, World::lease(node, &now())));
    api.all("leases", leases.collect())?;
    api.all("nodes", (0..count).map(|node| Call::create("/api/v1/nodes", World::node(node))).collect())?;
    let status = |node| {
        let path = format!("/api/v1/nodes/{}/status", world::node_name(node));
        Call::merge(path, World::node_status(node))
    };
    api.all("nodes", (0..count).map(status).collect())?;
    api.repeat(RENEWAL, move || {
        let spec = json!({"spec": {"renewTime": now()}});
        (0..count).map(|node| Call::merge(format!("{LEASES}/{}", world::node_name(node)), spec.clone())).collect()
    });
    Ok(())
}

/// The time as leases want it.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

/// Endpoints in all EndpointSlices of [`World`]'s Services.
fn endpoints(api: &Api) -> anyhow::Result<usize> {
    let slices = api.ask(Call::get("/apis/discovery.k8s.io/v1/endpointslices"))?;
    let slices = slices["items"].as_array().context("a list")?;
    let ours =
        slices.iter().filter(|it| it["metadata"]["namespace"].as_str().is_some_and(|it| it.starts_with("scale-")));
    Ok(ours.map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).sum())
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let Err(error) = holds() else { return Ok(()) };
        ensure!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}: {error:#}");
        interrupt::sleep(Duration::from_secs(1))?;
    }
}
