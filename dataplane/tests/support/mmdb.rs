//! Writes the smallest database of MaxMind's format that says something of IPv4 networks
//! (<https://maxmind.github.io/MaxMind-DB/>).

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// Between the tree and the data.
const SEPARATOR: [u8; 16] = [0; 16];
const METADATA: &[u8] = b"\xab\xcd\xefMaxMind.com";

#[derive(Clone, Copy)]
enum To {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of these networks, which must not overlap, and what is said of each.
pub fn database(networks: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[To::Nothing; 2]];
    let mut data = Vec::new();
    for (network, value) in networks {
        let network: Ipv4Net = network.parse().unwrap();
        let bits = u32::from(network.network());
        let mut at = 0;
        for depth in 0..network.prefix_len() {
            let side = (bits >> (31 - depth)) as usize & 1;
            if depth + 1 == network.prefix_len() {
                nodes[at][side] = To::Data(data.len());
            } else if let To::Node(next) = nodes[at][side] {
                at = next;
            } else {
                nodes.push([To::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[at][side] = To::Node(next);
                at = next;
            }
        }
        encode(value, &mut data);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for to in nodes.iter().flatten() {
        let record = match to {
            To::Nothing => count,
            To::Node(node) => *node,
            To::Data(offset) => count + SEPARATOR.len() + offset,
        };
        file.extend(u32::try_from(record).unwrap().to_be_bytes());
    }
    file.extend(SEPARATOR);
    file.extend(data);
    file.extend(METADATA);
    control(7, 9, &mut file);
    for (key, kind, bytes) in [
        (
            "node_count",
            6,
            u32::try_from(count).unwrap().to_be_bytes().to_vec(),
        ),
        ("record_size", 5, vec![32]),
        ("ip_version", 5, vec![4]),
        ("binary_format_major_version", 5, vec![2]),
        ("binary_format_minor_version", 5, vec![]),
        ("build_epoch", 9, 1_700_000_000_u32.to_be_bytes().to_vec()),
    ] {
        encode(&json!(key), &mut file);
        control(kind, bytes.len(), &mut file);
        file.extend(bytes);
    }
    for (key, value) in [
        ("database_type", json!("Test")),
        ("languages", json!(["en"])),
        ("description", json!({ "en": "test" })),
    ] {
        encode(&json!(key), &mut file);
        encode(&value, &mut file);
    }
    file
}

fn encode(value: &Value, into: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            control(7, map.len(), into);
            for (key, value) in map {
                encode(&Value::String(key.clone()), into);
                encode(value, into);
            }
        }
        Value::Array(items) => {
            control(11, items.len(), into);
            for item in items {
                encode(item, into);
            }
        }
        Value::String(text) => {
            control(2, text.len(), into);
            into.extend(text.as_bytes());
        }
        Value::Bool(is) => control(14, usize::from(*is), into),
        Value::Number(number) => {
            let bytes = u32::try_from(number.as_u64().unwrap()).unwrap().to_be_bytes();
            control(6, bytes.len(), into);
            into.extend(bytes);
        }
        Value::Null => unreachable!("the format has none"),
    }
}

fn control(kind: u8, size: usize, into: &mut Vec<u8>) {
    let size = u8::try_from(size).unwrap();
    assert!(size < 29, "longer than this writer can say");
    if kind > 7 {
        into.extend([size, kind - 7]);
    } else {
        into.push(kind << 5 | size);
    }
}
