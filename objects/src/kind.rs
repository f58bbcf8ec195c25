//! What an `apiVersion` and a `kind` name: an object for us, a list of objects, or something
//! that others look after.

use policy::model::{ObjectKey, PodKey, PolicyKind, PolicyRef, ServiceKey};

use crate::error::ObjectName;
use crate::metadata::DEFAULT_NAMESPACE;
use crate::nearest::nearest;
use crate::path::Quoted;
use crate::syntax;

/// A kind of object that is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Namespace.
    Namespace,
    /// Pod.
    Pod,
    /// Node.
    Node,
    /// Service.
    Service,
    /// EndpointSlice.
    EndpointSlice,
    /// NetworkPolicy.
    NetworkPolicy,
    /// ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl Kind {
    /// All of them, policies last.
    pub const ALL: [Self; 7] = [
        Self::Namespace,
        Self::Pod,
        Self::Node,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// Its name, as in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The version in which it is read, as in `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Pod | Self::Node | Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// What names an object of this kind, if its name and namespace are well-formed.
    pub fn key(self, name: &ObjectName) -> Option<ObjectKey> {
        let namespace = name.namespace.as_deref().filter(|text| !text.is_empty()).unwrap_or(DEFAULT_NAMESPACE);
        syntax::dns_label(namespace).ok()?;
        let name = name.name.as_deref().filter(|name| syntax::dns_subdomain(name).is_ok())?;
        Some(match self {
            Self::Namespace => ObjectKey::Namespace(name.to_owned()),
            Self::Pod => ObjectKey::Pod(PodKey::new(namespace, name)),
            Self::Node => ObjectKey::Node(name.to_owned()),
            Self::Service => ObjectKey::Service(ServiceKey::new(namespace, name)),
            Self::EndpointSlice => ObjectKey::EndpointSlice(ServiceKey::new(namespace, name)),
            Self::NetworkPolicy => ObjectKey::Policy(PolicyRef::network_policy(namespace, name)),
            Self::ClusterNetworkPolicy => ObjectKey::Policy(PolicyRef::cluster(name)),
        })
    }
}

impl From<&ObjectKey> for Kind {
    fn from(key: &ObjectKey) -> Self {
        match key {
            ObjectKey::Namespace(_) => Self::Namespace,
            ObjectKey::Pod(_) => Self::Pod,
            ObjectKey::Node(_) => Self::Node,
            ObjectKey::Service(_) => Self::Service,
            ObjectKey::EndpointSlice(_) => Self::EndpointSlice,
            ObjectKey::Policy(PolicyRef { kind: PolicyKind::NetworkPolicy, .. }) => Self::NetworkPolicy,
            ObjectKey::Policy(PolicyRef { kind: PolicyKind::ClusterNetworkPolicy, .. }) => Self::ClusterNetworkPolicy,
        }
    }
}

/// What an object with this key calls itself: [`Kind::key`] the other way round.
impl From<&ObjectKey> for ObjectName {
    fn from(key: &ObjectKey) -> Self {
        let (namespace, name) = match key {
            ObjectKey::Namespace(name) | ObjectKey::Node(name) => ("", name),
            ObjectKey::Pod(pod) => (&*pod.namespace, &pod.name),
            ObjectKey::Service(key) | ObjectKey::EndpointSlice(key) => (&*key.namespace, &key.name),
            ObjectKey::Policy(policy) => (&*policy.namespace, &policy.name),
        };
        Self {
            kind: Kind::from(key).as_str().to_owned(),
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            name: Some(name.clone()),
        }
    }
}

/// Groups whose kinds are read in one version only.
const OUR_GROUPS: [&str; 3] = ["networking.k8s.io", "policy.networking.k8s.io", "discovery.k8s.io"];

/// What a document is by its `apiVersion` and `kind`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Recognised {
    Object(Kind),
    /// `items` are objects; of this kind where they do not say so themselves.
    List(Option<Kind>),
    /// None of our business.
    Foreign,
    /// Almost certainly meant for us, but not so written. `field` is the one to mend.
    Mistaken {
        kind: Option<Kind>,
        field: &'static str,
        what: String,
        fix: String,
    },
}

/// Both must have been written as text. What is not well-formed as an `apiVersion` is `Mistaken`.
pub(crate) fn recognise(api_version: &str, kind: &str) -> Recognised {
    let mistaken = |kind, field, what, fix| Recognised::Mistaken { kind, field, what, fix };
    if api_version.is_empty() || api_version.split('/').count() > 2 || api_version.split('/').any(str::is_empty) {
        let meant = Kind::ALL.into_iter().find(|ours| ours.as_str() == kind);
        let fix = meant.map_or("write group/version, or v1", Kind::api_version);
        return mistaken(
            meant,
            "apiVersion",
            format!("{} is not an API version", Quoted(api_version)),
            format!("use {fix}"),
        );
    }
    for ours in Kind::ALL {
        let list_of = kind.strip_suffix("List") == Some(ours.as_str());
        if kind != ours.as_str() && !list_of {
            continue;
        }
        if api_version == ours.api_version() {
            return if list_of { Recognised::List(Some(ours)) } else { Recognised::Object(ours) };
        }
        // Groups of others have a dot in their name; only Kubernetes' own oldest ones have none.
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if !group.contains('.') || OUR_GROUPS.contains(&group) {
            let what = format!("{kind} is read in version {}, not {}", ours.api_version(), Quoted(api_version));
            return mistaken(Some(ours), "apiVersion", what, format!("use {}", ours.api_version()));
        }
        return Recognised::Foreign;
    }
    if api_version == "v1" && kind == "List" {
        return Recognised::List(None);
    }
    let here = Kind::ALL.into_iter().filter(|ours| ours.api_version() == api_version);
    if let Some(meant) = nearest(kind, here.map(Kind::as_str)) {
        let what = format!("{api_version} has no kind {}", Quoted(kind));
        return mistaken(None, "kind", what, format!("did you mean {meant}?"));
    }
    Recognised::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_of_others_is_passed_over() {
        for (api_version, kind, ours) in [
            ("v1", "Pod", Kind::Pod),
            ("v1", "Namespace", Kind::Namespace),
            ("v1", "Node", Kind::Node),
            ("v1", "Service", Kind::Service),
            ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
            ("networking.k8s.io/v1", "NetworkPolicy", Kind::NetworkPolicy),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", Kind::ClusterNetworkPolicy),
        ] {
            assert_eq!(recognise(api_version, kind), Recognised::Object(ours));
            assert_eq!(recognise(api_version, &format!("{kind}List")), Recognised::List(Some(ours)));
        }
        assert_eq!(recognise("v1", "List"), Recognised::List(None));
        for (api_version, kind) in [
            ("v1", "Endpoints"),
            ("serving.knative.dev/v1", "Service"),
            ("apps/v1", "Deployment"),
            ("networking.k8s.io/v1", "Ingress"),
            ("projectcalico.org/v3", "NetworkPolicy"),
            ("crd.antrea.io/v1beta1", "ClusterNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
            ("cilium.io/v2", "CiliumNetworkPolicy"),
        ] {
            assert_eq!(recognise(api_version, kind), Recognised::Foreign, "{api_version} {kind}");
        }
        for (api_version, kind) in [
            ("v1", "NetworkPolicy"),
            ("extensions/v1beta1", "NetworkPolicy"),
            ("networking.k8s.io/v2", "NetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy"),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolcy"),
            ("networking.k8s.io/v1", "ClusterNetworkPolicy"),
            ("networking.k8s.io/v1", "Networkpolicy"),
            ("networking.k8s.io/v1", "NetworkPolcy"),
            ("apps/v1", "Pod"),
            ("discovery.k8s.io/v1beta1", "EndpointSlice"),
            ("v1", "pod"),
            ("v1", "Namespaces"),
            ("", "Pod"),
            ("v1/", "Pod"),
            ("a/b/c", "Thing"),
        ] {
            assert!(matches!(recognise(api_version, kind), Recognised::Mistaken { .. }), "{api_version} {kind}");
        }
    }

    #[test]
    fn a_key_and_what_an_object_calls_itself_say_the_same() {
        for kind in Kind::ALL {
            let cluster = matches!(kind, Kind::Namespace | Kind::Node | Kind::ClusterNetworkPolicy);
            let namespace = (!cluster).then(|| "shop".to_owned());
            let name = ObjectName { kind: kind.as_str().to_owned(), namespace, name: Some("it".to_owned()) };
            let key = kind.key(&name).unwrap();
            assert_eq!((Kind::from(&key), ObjectName::from(&key)), (kind, name));
        }
    }
}
