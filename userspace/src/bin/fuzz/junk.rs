//! Malformed datagrams, either mutated from well-formed ones or random. A seed
//! determines all of them.

use nlrig_guest::uapi::{NLRIG_A_SEND_MAX, NLRIG_MSG_BASE, NLRIG_MSG_MAX};
use nlrig_netlink::wire::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nlrig_netlink::{Body, Header, MessageBuilder};

/// A pseudo-random number generator, xorshift64* (Vigna, "An experimental
/// exploration of Marsaglia's xorshift generators, scrambled", 2016).
pub struct Xorshift(u64);

impl Xorshift {
    pub fn new(seed: u64) -> Xorshift {
        // Xorshift never leaves the state zero.
        Xorshift(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number that range checks often miss, or any number.
    fn edge_case(&mut self) -> u32 {
        const EDGE_CASES: [u32; 12] =
            [0, 1, 2, 15, 16, 64, 65, 100_000, 100_001, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        match self.one_in(3) {
            true => self.next() as u32,
            false => EDGE_CASES[self.below(EDGE_CASES.len() as u64) as usize],
        }
    }
}

/// Fewer than `most` random bytes.
pub fn bytes(random: &mut Xorshift, most: u64) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.next() as u8).collect()
}

/// A random datagram.
pub fn datagram(random: &mut Xorshift) -> Vec<u8> {
    if random.one_in(20) {
        return bytes(random, 4096);
    }
    let mut builder = MessageBuilder::new();
    for _ in 0..=random.below(3) {
        let header = header(random);
        if random.one_in(5) {
            builder.message_as_is(header, |payload| body(payload, random));
        } else {
            builder.message(header, |payload| body(payload, random));
        }
    }
    // If the builder rejects the message, random bytes are sent instead.
    let mut datagram = builder.into_vec().unwrap_or_else(|_| bytes(random, 64));
    if random.one_in(4) && !datagram.is_empty() {
        for _ in 0..=random.below(4) {
            let place = random.below(datagram.len() as u64) as usize;
            datagram[place] ^= 1 << random.below(8);
        }
    }
    if random.one_in(10) {
        datagram.truncate(random.below(datagram.len() as u64) as usize);
    }
    datagram
}

fn header(random: &mut Xorshift) -> Header {
    let kinds = u64::from(NLRIG_MSG_MAX - NLRIG_MSG_BASE + 2);
    let kind = match random.one_in(10) {
        true => random.next() as u16,
        false => (u64::from(NLRIG_MSG_BASE) + random.below(kinds)) as u16,
    };
    let flags = match random.below(4) {
        0 => random.next() as u16,
        1 => NLM_F_REQUEST | NLM_F_DUMP,
        2 => NLM_F_REQUEST | NLM_F_ACK,
        _ => NLM_F_REQUEST,
    };
    Header {
        length: random.edge_case() & 0xffff,
        kind,
        flags,
        sequence: random.next() as u32,
        portid: random.edge_case(),
    }
}

fn body(body: &mut Body<'_>, random: &mut Xorshift) {
    if random.one_in(4) {
        body.raw(&bytes(random, 64));
        return;
    }
    if random.one_in(4) {
        // The size of a protocol structure with a reserved end of zeros.
        let (size, used) = if random.one_in(2) { (16, 8) } else { (8, 4) };
        let mut structure = [0; 16];
        structure[..used].copy_from_slice(&random.next().to_ne_bytes()[..used]);
        body.raw(&structure[..size]);
        return;
    }
    for _ in 0..random.below(8) {
        let kind = random.below(u64::from(NLRIG_A_SEND_MAX) + 2) as u16;
        match random.below(8) {
            0 => body.flag(kind),
            1 => body.u64(kind, random.next()),
            2 => body.bytes(kind, &bytes(random, 80)),
            3 => {
                body.attribute_as_is(random.next() as u16, random.next() as u16, &bytes(random, 16))
            }
            4 => body.nested(kind, |inner| {
                inner.u32(1, 1);
            }),
            _ => body.u32(kind, random.edge_case()),
        };
    }
}
