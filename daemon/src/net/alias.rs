//! What a host link's alias says of its attachment, so that the link can be taken over when its
//! record is lost: `CONTAINER/IFNAME NETWORK NAMESPACE/POD`.

/// Longest alias of a link without its final zero (IFALIASZ, include/uapi/linux/if.h).
const ALIAS_MAX: usize = 255;

/// An attachment, in the words of the runtime.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Alias {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// Name of the CNI network, the pod's namespace and its name. `None` where they did not fit, or
    /// would not be understood again.
    pub pod: Option<(String, String, String)>,
}

impl Alias {
    /// As text; `None` if not even the attachment fits.
    pub fn text(&self) -> Option<String> {
        let attachment = format!("{}/{}", self.container_id, self.ifname);
        let whole =
            self.pod.as_ref().map(|(network, namespace, name)| format!("{attachment} {network} {namespace}/{name}"));
        // Runtimes may name things as they like; only what reads as it was meant is written.
        let whole = whole.filter(|text| text.len() <= ALIAS_MAX && Self::parse(text).as_ref() == Some(self));
        whole.or_else(|| (attachment.len() <= ALIAS_MAX).then_some(attachment))
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Option<Self> {
        let (attachment, rest) = match text.split_once(' ') {
            Some((attachment, rest)) => (attachment, Some(rest)),
            None => (text, None),
        };
        let (container_id, ifname) = attachment.split_once('/')?;
        let pod = match rest {
            None => None,
            Some(rest) => {
                let (network, pod) = rest.split_once(' ')?;
                let (namespace, name) = pod.split_once('/')?;
                let parts = [network, namespace, name];
                let plain = |part: &&str| !part.is_empty() && !part.contains([' ', '/']);
                if !parts.iter().all(plain) {
                    return None;
                }
                Some((network.to_owned(), namespace.to_owned(), name.to_owned()))
            }
        };
        Some(Self { container_id: container_id.to_owned(), ifname: ifname.to_owned(), pod })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(network: &str, namespace: &str, name: &str) -> Alias {
        let pod = Some((network.to_owned(), namespace.to_owned(), name.to_owned()));
        Alias { container_id: "c1".to_owned(), ifname: "eth0".to_owned(), pod }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let whole = alias("pods", "shop", "web-0");
        assert_eq!(whole.text().as_deref(), Some("c1/eth0 pods shop/web-0"));
        assert_eq!(Alias::parse("c1/eth0 pods shop/web-0"), Some(whole));
        let bare = Alias { pod: None, ..alias("", "", "") };
        assert_eq!(bare.text().as_deref(), Some("c1/eth0"));
        assert_eq!(Alias::parse("c1/eth0"), Some(bare));
    }

    #[test]
    fn what_would_be_misread_or_does_not_fit_is_left_out() {
        for (network, name) in [("", "web"), ("my net", "web"), ("pods", "we b"), ("pods", ""), ("pods", "w/eb")] {
            assert_eq!(alias(network, "shop", name).text().as_deref(), Some("c1/eth0"), "{network:?} {name:?}");
        }
        let longest = "w".repeat(255 - "c1/eth0 pods shop/".len());
        assert_eq!(alias("pods", "shop", &longest).text().map(|text| text.len()), Some(255));
        assert_eq!(alias("pods", "shop", &format!("{longest}w")).text().as_deref(), Some("c1/eth0"));
        let long = Alias { container_id: "c".repeat(251), ..alias("pods", "shop", "web") };
        assert_eq!(long.text(), None);
    }

    #[test]
    fn what_others_have_written_is_no_attachment() {
        for text in
            ["", "uplink", "c1/eth0 pods", "c1/eth0 pods shop", "c1/eth0 pods shop/web more", "c1/eth0  shop/web"]
        {
            assert_eq!(Alias::parse(text), None, "{text:?}");
        }
    }
}
