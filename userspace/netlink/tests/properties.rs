//! Round trips through the builder and the parsers; arbitrary bytes never cause
//! a panic, an out-of-bounds slice or an endless loop.

use nlrig_netlink::wire::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR, align};
use nlrig_netlink::{
    Attribute, Attributes, Body, BuildError, Header, Malformed, Message, MessageBuilder, Messages,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// An attribute to build.
#[derive(Clone, Debug)]
enum Tree {
    Bytes(u16, Vec<u8>),
    U8(u16, u8),
    U16(u16, u16),
    U32(u16, u32),
    U64(u16, u64),
    Flag(u16),
    Text(u16, String),
    Nest(u16, Vec<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let kind = || 0..1_u16 << 14;
    let leaf = prop_oneof![
        (kind(), vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| Tree::Bytes(kind, bytes)),
        (kind(), any::<u8>()).prop_map(|(kind, value)| Tree::U8(kind, value)),
        (kind(), any::<u16>()).prop_map(|(kind, value)| Tree::U16(kind, value)),
        (kind(), any::<u32>()).prop_map(|(kind, value)| Tree::U32(kind, value)),
        (kind(), any::<u64>()).prop_map(|(kind, value)| Tree::U64(kind, value)),
        kind().prop_map(Tree::Flag),
        (kind(), vec(1..=127_u8, 0..20)).prop_map(|(kind, text)| {
            Tree::Text(kind, text.into_iter().map(char::from).collect())
        }),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        (kind(), vec(inner, 0..6)).prop_map(|(kind, trees)| Tree::Nest(kind, trees))
    })
}

fn header() -> impl Strategy<Value = Header> {
    (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
        |(kind, flags, sequence, portid)| Header { portid, ..Header::new(kind, flags, sequence) },
    )
}

/// Messages: a header, a protocol-specific header, and attributes.
fn datagram() -> impl Strategy<Value = Vec<(Header, Vec<u8>, Vec<Tree>)>> {
    vec((header(), vec(any::<u8>(), 0..20), vec(tree(), 0..5)), 0..5)
}

fn build_trees(body: &mut Body, trees: &[Tree]) {
    for tree in trees {
        match tree {
            Tree::Bytes(kind, bytes) => body.bytes(*kind, bytes),
            Tree::U8(kind, value) => body.u8(*kind, *value),
            Tree::U16(kind, value) => body.u16(*kind, *value),
            Tree::U32(kind, value) => body.u32(*kind, *value),
            Tree::U64(kind, value) => body.u64(*kind, *value),
            Tree::Flag(kind) => body.flag(*kind),
            Tree::Text(kind, text) => body.string(*kind, text),
            Tree::Nest(kind, trees) => body.nested(*kind, |nest| build_trees(nest, trees)),
        };
    }
}

fn build(builder: &mut MessageBuilder, messages: &[(Header, Vec<u8>, Vec<Tree>)]) {
    for (header, own, trees) in messages {
        builder.message(*header, |body| build_trees(body.raw(own), trees));
    }
}

fn same(attribute: &Attribute, tree: &Tree) -> bool {
    let (kind, right) = match tree {
        Tree::Bytes(kind, bytes) => (kind, attribute.payload == bytes),
        Tree::U8(kind, value) => (kind, attribute.u8() == Some(*value)),
        Tree::U16(kind, value) => (kind, attribute.u16() == Some(*value)),
        Tree::U32(kind, value) => (kind, attribute.u32() == Some(*value)),
        Tree::U64(kind, value) => (kind, attribute.u64() == Some(*value)),
        Tree::Flag(kind) => (kind, attribute.payload.is_empty()),
        Tree::Text(kind, text) => (kind, attribute.str() == Some(text)),
        Tree::Nest(kind, trees) => (kind, all_same(attribute.nested(), trees)),
    };
    let nest = matches!(tree, Tree::Nest(..));
    right && attribute.kind() == *kind && attribute.is_nested() == nest
}

fn all_same(attributes: Attributes, trees: &[Tree]) -> bool {
    let attributes: Result<Vec<Attribute>, Malformed> = attributes.collect();
    attributes.is_ok_and(|attributes| {
        attributes.len() == trees.len()
            && attributes.iter().zip(trees).all(|(attribute, tree)| same(attribute, tree))
    })
}

/// Bytes with plausible lengths and types, so that the parsers get past the
/// first check.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => any::<[u8; 4]>(),
        2 => (0..64_u32).prop_map(u32::to_ne_bytes),
        2 => (0..32_u16, 0..8_u16).prop_map(|(low, high)| {
            let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
            [a, b, c, d]
        }),
    ];
    (vec(word, 0..80), vec(any::<u8>(), 0..4))
        .prop_map(|(words, rest)| words.into_iter().flatten().chain(rest).collect())
}

/// Whether `part` lies within `whole`.
fn within(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

/// Parses attributes recursively up to `depth` and counts them.
fn read_attributes(attributes: Attributes, whole: &[u8], depth: u32) -> usize {
    let mut count = 0;
    for attribute in attributes {
        count += 1;
        let Ok(attribute) = attribute else { continue };
        assert!(within(attribute.payload, whole));
        let _ = (attribute.u8(), attribute.u16(), attribute.u32(), attribute.u64());
        let _ = attribute.str();
        if depth > 0 {
            count += read_attributes(attribute.nested(), whole, depth - 1);
        }
    }
    count
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn built_messages_parse_back(datagram in datagram()) {
        let mut builder = MessageBuilder::new();
        build(&mut builder, &datagram);
        let bytes = builder.into_vec().unwrap();
        let messages: Vec<Message> =
            Messages::new(&bytes).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(messages.len(), datagram.len());
        for (message, (header, own, trees)) in messages.iter().zip(&datagram) {
            let length = message.header.length;
            prop_assert_eq!(message.header, Header { length, ..*header });
            prop_assert_eq!(length as usize, 16 + message.payload.len());
            prop_assert_eq!(&message.payload[..own.len()], own);
            prop_assert!(all_same(message.attributes(own.len()), trees));
        }
    }

    #[test]
    fn a_buffer_gets_the_same_bytes_as_a_vec(datagram in datagram(), room in 0..600_usize) {
        let mut owned = MessageBuilder::new();
        build(&mut owned, &datagram);
        let right = owned.bytes().unwrap();
        let mut buffer = vec![0xaa; room];
        let mut lent = MessageBuilder::in_buffer(&mut buffer);
        build(&mut lent, &datagram);
        if right.len() <= room {
            prop_assert_eq!(lent.bytes(), Ok(right));
        } else {
            prop_assert_eq!(lent.bytes(), Err(BuildError::Full { needs: right.len() }));
        }
    }

    #[test]
    fn a_truncated_datagram_parses_up_to_the_cut(datagram in datagram(), cut in any::<usize>()) {
        let mut builder = MessageBuilder::new();
        build(&mut builder, &datagram);
        let bytes = builder.into_vec().unwrap();
        let cut = &bytes[..cut % (bytes.len() + 1)];
        let mut whole = Messages::new(&bytes);
        let mut end = 0;
        for message in Messages::new(cut) {
            match message {
                Ok(message) => {
                    end = align(end) + message.header.length as usize;
                    prop_assert_eq!(Some(Ok(message)), whole.next());
                }
                Err(Malformed::Truncated { at, has, .. }) => {
                    prop_assert_eq!((at, at + has), (align(end), cut.len()));
                    end = cut.len();
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        // At most padding is missing.
        prop_assert!(align(end) >= cut.len());
    }

    #[test]
    fn parsing_any_bytes_terminates(bytes in noise(), after in 0..24_usize) {
        let mut messages = Messages::new(&bytes);
        // Every message except the last takes at least 16 bytes.
        for message in messages.by_ref().take(bytes.len() / 16 + 2) {
            let Ok(message) = message else { break };
            prop_assert!(within(message.payload, &bytes));
            read_attributes(message.attributes(after), &bytes, 2);
            let _ = (message.ack(), message.done());
        }
        prop_assert_eq!(messages.next(), None);
        prop_assert!(
            read_attributes(Attributes::new(&bytes), &bytes, 0) <= bytes.len() / 4 + 1
        );
        let mut attributes = Attributes::new(&bytes);
        if attributes.by_ref().any(|attribute| attribute.is_err()) {
            prop_assert_eq!(attributes.next(), None);
        }
    }

    #[test]
    fn parsing_any_acknowledgement_stays_within_its_bounds(
        payload in noise(),
        tlvs in any::<bool>(),
        capped in any::<bool>(),
    ) {
        let flag = |on, flag| if on { flag } else { 0 };
        let flags = flag(tlvs, NLM_F_ACK_TLVS) | flag(capped, NLM_F_CAPPED);
        let message =
            Message { header: Header::new(NLMSG_ERROR, flags, 1), payload: &payload };
        if let Some(Ok(ack)) = message.ack() {
            prop_assert!(ack.request.is_none_or(|request| within(request, &payload)));
            prop_assert!(ack.message.is_none_or(|text| within(text.as_bytes(), &payload)));
            prop_assert!(read_attributes(ack.attributes, &payload, 2) == 0 || tlvs);
        }
        let message = Message { header: Header::new(NLMSG_DONE, flags, 1), ..message };
        if let Some(Ok(done)) = message.done() {
            prop_assert!(done.message.is_none_or(|text| within(text.as_bytes(), &payload)));
        }
    }
}
