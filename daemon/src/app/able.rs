//! What is asked for that not every kernel can do: found out before anything on the node is changed, and refused with the option and
//! what to do.

use std::path::Path;

use anyhow::bail;

use crate::{
    args::{self, Attach},
    config::{self, Config},
    datapath::probe::{self, AttachMode},
    net::{
        Node,
        overlay::{self, Protocol},
        pair::{self, PodDevice},
    },
};

/// How programs are attached, and what links new pods to the node.
///
/// # Errors
/// This kernel cannot do what is asked for.
pub(super) async fn ask(node: &Node, config: &Config) -> anyhow::Result<(AttachMode, PodDevice)> {
    if probe::is_realtime(Path::new(probe::REALTIME)) {
        bail!("this is a real-time kernel ({} is 1): take one without CONFIG_PREEMPT_RT", probe::REALTIME);
    }
    let mode = match config.attach {
        Attach::Tcx if !probe::has_tcx()? => bail!("--attach tcx: this kernel has no tcx (6.6 has it), use clsact"),
        Attach::Tcx => AttachMode::Tcx,
        Attach::Clsact => AttachMode::Clsact,
    };
    if let Some(config::Overlay { protocol, .. }) = config.overlay
        && !overlay::is_known(node, protocol).await?
    {
        bail!(refused_overlay(protocol));
    }
    Ok((mode, pod_device(node, config.pod_device).await?))
}

/// What new pods get.
async fn pod_device(node: &Node, wanted: args::PodDevice) -> anyhow::Result<PodDevice> {
    Ok(match wanted {
        args::PodDevice::Veth => PodDevice::Veth,
        args::PodDevice::Auto | args::PodDevice::Netkit if pair::is_known(node, PodDevice::Netkit).await? => {
            PodDevice::Netkit
        }
        args::PodDevice::Auto => PodDevice::Veth,
        args::PodDevice::Netkit => bail!(
            "--pod-device netkit: this kernel has no netkit devices (6.7 has them, with CONFIG_NETKIT): use veth, or auto"
        ),
    })
}

/// A kernel without the devices of a protocol.
fn refused_overlay(protocol: Protocol) -> String {
    let name = protocol.name();
    let instead = match protocol {
        Protocol::Vxlan => "--routing native",
        Protocol::Geneve => "--overlay-protocol vxlan on all nodes",
    };
    format!(
        "--overlay-protocol {name}: this kernel has no {} devices: load its module {name} (CONFIG_{}), or use {instead}",
        protocol.title(),
        name.to_uppercase()
    )
}
