//! The fields of `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy, as they are written.
//!
//! Types have the names of the API, because messages about unknown fields name them. What the API
//! requires is optional here, so that what is missing can be named with its place.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Deserialize;

/// The object.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// Always `policy.networking.k8s.io/v1alpha2`.
    #[serde(default)]
    pub api_version: String,
    /// Always `ClusterNetworkPolicy`.
    #[serde(default)]
    pub kind: String,
    /// Name, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: Option<ClusterNetworkPolicySpec>,
}

/// What it asks for.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`.
    pub tier: Option<String>,
    /// 0 to 1000.
    pub priority: Option<i32>,
    /// To whom it applies.
    pub subject: Option<ClusterNetworkPolicySubject>,
    /// Rules for what the subject receives.
    pub ingress: Option<Vec<ClusterNetworkPolicyIngressRule>>,
    /// Rules for what the subject sends.
    pub egress: Option<Vec<ClusterNetworkPolicyEgressRule>>,
}

/// Exactly one of both.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicySubject {
    /// Every pod of these.
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    pub pods: Option<NamespacedPod>,
}

/// Pods by labels.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Where; missing is everywhere.
    pub namespace_selector: Option<LabelSelector>,
    /// Which there.
    pub pod_selector: Option<LabelSelector>,
}

/// An ingress rule.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicyIngressRule {
    /// Name, for people.
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: Option<String>,
    /// Peers.
    pub from: Option<Vec<ClusterNetworkPolicyIngressPeer>>,
    /// Ports.
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
}

/// An egress rule.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicyEgressRule {
    /// Name, for people.
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`.
    pub action: Option<String>,
    /// Peers.
    pub to: Option<Vec<ClusterNetworkPolicyEgressPeer>>,
    /// Ports.
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
}

/// Exactly one of these.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct ClusterNetworkPolicyIngressPeer {
    /// Every pod of these.
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    pub pods: Option<NamespacedPod>,
}

/// Exactly one of these.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicyEgressPeer {
    /// Every pod of these.
    pub namespaces: Option<LabelSelector>,
    /// These pods.
    pub pods: Option<NamespacedPod>,
    /// The addresses of these.
    pub nodes: Option<LabelSelector>,
    /// These blocks.
    pub networks: Option<Vec<String>>,
    /// What these names stand for.
    pub domain_names: Option<Vec<String>>,
}

/// Exactly one of these.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicyProtocol {
    /// Ports of TCP.
    pub tcp: Option<ClusterNetworkPolicyProtocolPorts>,
    /// Ports of UDP.
    pub udp: Option<ClusterNetworkPolicyProtocolPorts>,
    /// Ports of SCTP.
    pub sctp: Option<ClusterNetworkPolicyProtocolPorts>,
    /// A port that the destination pod gives this name, of any protocol.
    pub destination_named_port: Option<String>,
}

/// Ports of one protocol.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicyProtocolPorts {
    /// Which.
    pub destination_port: Option<Port>,
}

/// Exactly one of both.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: Option<i32>,
    /// From one to another.
    pub range: Option<PortRange>,
}

/// Both ends belong to it.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
pub struct PortRange {
    /// First.
    pub start: Option<i32>,
    /// Last; greater than the first.
    pub end: Option<i32>,
}
