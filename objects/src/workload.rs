//! Which workload a pod belongs to: the Deployment behind a ReplicaSet, a StatefulSet, a Job.

use k8s_openapi::api::core::v1::Pod;
use policy::model::Workload;

/// Label by which a Deployment tells its ReplicaSets apart; its value ends their names.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The workload of a pod, from the owner that controls it; `None` if the pod stands for itself.
/// Of a ReplicaSet that a Deployment made, the Deployment; a Job stays a Job, because a pod does
/// not tell which CronJob made it.
pub fn workload(pod: &Pod) -> Option<Workload> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let owner_itself = || Workload { kind: owner.kind.clone(), name: owner.name.clone() };
    match owner.kind.as_str() {
        // The mirror of a static pod is owned by its node.
        "Node" | "" => None,
        "ReplicaSet" => {
            let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_TEMPLATE_HASH));
            let hash = hash.filter(|hash| !hash.is_empty());
            let stem = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            match stem.filter(|name| !name.is_empty()) {
                Some(name) => Some(Workload { kind: "Deployment".to_owned(), name: name.to_owned() }),
                None => Some(owner_itself()),
            }
        }
        _ => Some(owner_itself()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn of(owner: Option<(&str, &str)>, hash: Option<&str>) -> String {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web-7d4b9-x2x".to_owned());
        pod.metadata.labels = hash.map(|hash| [(POD_TEMPLATE_HASH.to_owned(), hash.to_owned())].into());
        pod.metadata.owner_references = owner.map(|(kind, name)| {
            let other = OwnerReference { kind: "Thing".to_owned(), name: "t".to_owned(), ..OwnerReference::default() };
            let owner = OwnerReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            };
            vec![other, owner]
        });
        workload(&pod).map_or("itself".to_owned(), |workload| workload.to_string())
    }

    #[test]
    fn the_controlling_owner_is_the_workload() {
        assert_eq!(of(None, None), "itself");
        assert_eq!(of(Some(("ReplicaSet", "web-7d4b9")), Some("7d4b9")), "Deployment web");
        assert_eq!(of(Some(("ReplicaSet", "web")), None), "ReplicaSet web");
        assert_eq!(of(Some(("ReplicaSet", "web-1")), Some("7d4b9")), "ReplicaSet web-1");
        assert_eq!(of(Some(("ReplicaSet", "-7d4b9")), Some("7d4b9")), "ReplicaSet -7d4b9");
        assert_eq!(of(Some(("ReplicaSet", "web-")), Some("")), "ReplicaSet web-");
        assert_eq!(of(Some(("StatefulSet", "db")), None), "StatefulSet db");
        assert_eq!(of(Some(("Job", "backup-28")), None), "Job backup-28");
        assert_eq!(of(Some(("Node", "node-1")), None), "itself");
    }
}
