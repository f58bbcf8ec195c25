//! Where the fuzzer of manifests starts from: the golden cases of `objects`, and the words that
//! YAML, JSON and the objects are made of. The target itself is [`::objects::fuzz`].

/// Reads a file of objects, and an Identity, which no file has.
///
/// # Panics
///
/// On a defect.
pub fn text(bytes: &[u8]) {
    ::objects::fuzz::documents(bytes);
    ::objects::fuzz::shared_identity(bytes);
}

/// An Identity.
const IDENTITY: &str = r#"{"metadata": {"name": "70001"}, "spec": {"namespace": "shop", "serviceAccount": "default",
    "namespaceLabels": {"kubernetes.io/metadata.name": "shop"}, "labels": {"app": "web"}}}"#;

/// Every input of the golden cases, and an Identity.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        include_str!("../../objects/testdata/accepted.txt"),
        include_str!("../../objects/testdata/cluster_policies.txt"),
        include_str!("../../objects/testdata/refused_text.txt"),
        include_str!("../../objects/testdata/refused_fields.txt"),
        include_str!("../../objects/testdata/refused_values.txt"),
    ];
    let cases = files.into_iter().flat_map(|file| file.split("\n=== ").skip(1));
    let inputs = cases.filter_map(|case| case.split_once('\n')?.1.split(">>>").next());
    inputs.chain([IDENTITY]).map(|input| input.as_bytes().to_vec()).collect()
}

/// Syntax and names of fields, one a line.
pub const WORDS: &str = include_str!("../words/objects.txt");
