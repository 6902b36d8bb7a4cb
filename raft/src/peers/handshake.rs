//! Two nodes make sure of each other before anything else is said.
//!
//! ```text
//! dialer -> acceptor   HELLO     who I am, whom I look for, a challenge
//! acceptor -> dialer   HELLO     the same, and a proof
//! dialer -> acceptor   PROOF     and the newest roll that I have seen
//! acceptor -> dialer   WELCOME, or REFUSED with a code
//! ```
//!
//! A proof is HMAC-SHA256 under the cluster's secret of the role and both hellos, challenges included: it cannot be used a
//! second time or in the other direction. The roll is in it: a member that was away while others came and went knows nobody
//! any more, and learns who they are from the first of them that dials it. The secret itself never crosses the wire. Who
//! does not prove that he knows it learns nothing but that. Frames after the handshake are not signed: a network that others
//! can write into needs TLS.

use std::{io, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    Introduction, Secret,
    frame::{self, FrameReader},
    refusal::{Refusal, RefusalCode},
    roster::Roster,
};
use crate::{
    level::{PROTOCOL_WITH_ROLL, Versions},
    random,
    roll::Roll,
};

/// How long it may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// The largest frame of a handshake: strangers speak here.
const MAX_BYTES: usize = 4 << 10;
/// The largest roll that is shown: a thousand nodes that were taken out.
const MAX_ROLL_BYTES: usize = 64 << 10;
const PROOF_BYTES: usize = 32;

const HELLO: u8 = 100;
const PROOF: u8 = 101;
const WELCOME: u8 = 102;
pub(super) const REFUSED: u8 = 103;

/// What this node checks others against.
pub(crate) struct Gate {
    pub(crate) own: Introduction,
    pub(crate) secret: Secret,
    pub(crate) roster: Roster,
}

struct Hello {
    who: Introduction,
    /// Whom the sender believes to speak to; 0 where that is known.
    to: u64,
    challenge: [u8; 32],
}

/// The side that dialed. Returns who is there.
pub(super) async fn dial<R, W>(
    gate: &Gate,
    to: u64,
    from: &mut FrameReader<R>,
    write: &mut W,
) -> Result<Introduction, Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let there = greet(&gate.own, &gate.secret, to, Some(&gate.roster), from, write).await?;
    gate.check(&there)?;
    Ok(there)
}

/// The same, by a node that may not know yet who else is a member.
pub(super) async fn greet<R, W>(
    own: &Introduction,
    secret: &Secret,
    to: u64,
    roster: Option<&Roster>,
    from: &mut FrameReader<R>,
    write: &mut W,
) -> Result<Introduction, Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    from.allow(MAX_BYTES);
    let mine = Hello { who: own.clone(), to, challenge: random::challenge() }.encode();
    send(write, HELLO, &mine).await?;
    let body = expect(from, HELLO).await.map_err(|refusal| match refusal.code {
        // Whoever has not proven that he knows the secret does not make a node stop.
        RefusalCode::Removed => Refusal::garbled(),
        _ => refusal,
    })?;
    let (theirs, proof) = body.split_at_checked(body.len().saturating_sub(PROOF_BYTES)).ok_or_else(Refusal::garbled)?;
    secret.verify("acceptor", &[&mine, theirs], proof)?;
    let there = Hello::decode(Bytes::copy_from_slice(theirs), &own.versions)?;
    let roll = match roster {
        Some(roster) if shows_roll(own, &there.who) => shown(roster),
        _ => Bytes::new(),
    };
    let proof = secret.prove("dialer", &proven(&mine, theirs, &roll));
    send(write, PROOF, &[&proof, roll.as_ref()].concat()).await?;
    expect(from, WELCOME).await?;
    if there.who.node_id != to {
        let text = format!("node {} answers where node {to} was expected; check the addresses", there.who.node_id);
        return Err(Refusal::new(RefusalCode::WrongNode, text));
    }
    from.allow(frame::MAX_FRAME_BYTES);
    Ok(there.who)
}

/// The side that was dialed. Returns who has come.
pub(super) async fn accept<R, W>(gate: &Gate, from: &mut FrameReader<R>, write: &mut W) -> Result<Introduction, Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    from.allow(MAX_BYTES);
    let theirs = expect(from, HELLO).await?;
    let there = match Hello::decode(theirs.clone(), &gate.own.versions) {
        Ok(there) => there,
        Err(refusal) => {
            send(write, REFUSED, &refusal.encode()).await?;
            return Err(refusal);
        }
    };
    let mine = Hello { who: gate.own.clone(), to: 0, challenge: random::challenge() }.encode();
    let answer = [mine.as_ref(), &gate.secret.prove("acceptor", &[&theirs, &mine])].concat();
    send(write, HELLO, &answer).await?;
    from.allow(MAX_BYTES + MAX_ROLL_BYTES);
    let mut proof = expect(from, PROOF).await?;
    let roll =
        if shows_roll(&gate.own, &there.who) { proof.split_off(proof.len().min(PROOF_BYTES)) } else { Bytes::new() };
    let judged = gate.secret.verify("dialer", &proven(&theirs, &mine, &roll), &proof).and_then(|()| {
        gate.learn(&there.who, &roll);
        if there.to != gate.own.node_id {
            let text = format!("this is node {}, not node {}; check the addresses", gate.own.node_id, there.to);
            return Err(Refusal::new(RefusalCode::WrongNode, text));
        }
        gate.check(&there.who)
    });
    if let Err(refusal) = judged {
        send(write, REFUSED, &refusal.encode()).await?;
        return Err(refusal);
    }
    send(write, WELCOME, &[]).await?;
    from.allow(frame::MAX_FRAME_BYTES);
    Ok(there.who)
}

fn shows_roll(own: &Introduction, other: &Introduction) -> bool {
    own.versions.agree(&other.versions).is_ok_and(|protocol| protocol >= PROTOCOL_WITH_ROLL)
}

/// What the proof of the side that dials is about.
fn proven<'a>(dialer: &'a [u8], acceptor: &'a [u8], roll: &'a [u8]) -> Vec<&'a [u8]> {
    if roll.is_empty() { vec![dialer, acceptor] } else { vec![dialer, acceptor, roll] }
}

/// The newest roll, or nothing where there is none but that of the settings.
fn shown(roster: &Roster) -> Bytes {
    let roll = roster.roll();
    let encoded = if roll.revision > 0 { roll.encode() } else { Bytes::new() };
    if encoded.len() > MAX_ROLL_BYTES { Bytes::new() } else { encoded }
}

impl Gate {
    /// Takes over what somebody who knows the secret has shown.
    fn learn(&self, who: &Introduction, roll: &Bytes) {
        if roll.is_empty() || who.cluster_id != self.own.cluster_id {
            return;
        }
        match Roll::decode(roll) {
            Ok(roll) => self.roster.learn(roll, who.node_id, self.own.node_id),
            Err(error) => tracing::warn!(node = who.node_id, %error, "a node shows a roll that cannot be read"),
        }
    }

    /// Whether somebody who knows the secret belongs here.
    fn check(&self, who: &Introduction) -> Result<(), Refusal> {
        let own = &self.own;
        let refuse = |code, text: String| Err(Refusal::new(code, text));
        // Who joins asks without one, and learns it.
        if who.cluster_id != own.cluster_id && !who.cluster_id.is_empty() {
            let text = format!("cluster {} does not talk to cluster {}", own.cluster_id, who.cluster_id);
            return refuse(RefusalCode::WrongCluster, text);
        }
        if who.shards != own.shards {
            let text =
                format!("node {} has {} shards, node {} has {}", own.node_id, own.shards, who.node_id, who.shards);
            return refuse(RefusalCode::ShardCount, text);
        }
        if self.roster.is_retired(who.node_id) {
            if who.cluster_id.is_empty() {
                let text = format!("id {} belonged to a node that was removed; choose another id", who.node_id);
                return refuse(RefusalCode::NodeIdReused, text);
            }
            let text =
                format!("node {} was removed from cluster {}, and does not come back", who.node_id, own.cluster_id);
            return refuse(RefusalCode::Removed, text);
        }
        let level = self.roster.roll().level();
        who.versions.fits(who.node_id, level)?;
        // It is this node then, which ends; the other one is told nothing that it would take for a fault of its own.
        own.versions
            .fits(own.node_id, level)
            .map_err(|refusal| Refusal::new(RefusalCode::Broken, refusal.to_string()))?;
        if !self.roster.is_member(who.node_id) || who.node_id == own.node_id {
            let text = format!("node {} is no other member of this cluster", who.node_id);
            return refuse(RefusalCode::NotAMember, text);
        }
        self.roster.recognise(who)
    }
}

impl Hello {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        let versions = &self.who.versions;
        out.put_u16(versions.newest_protocol);
        out.put_u16(versions.oldest_protocol);
        out.put_u32(versions.newest_level);
        out.put_u32(versions.oldest_level);
        out.put_u64(self.who.node_id);
        out.put_u64(self.to);
        out.put_u32(self.who.shards);
        out.put_slice(&self.challenge);
        for text in [&self.who.cluster_id, &self.who.disk_id, &self.who.service_address] {
            out.put_u16(text.len() as u16);
            out.put_slice(text.as_bytes());
        }
        out.freeze()
    }

    /// What comes behind is for newer versions. The layout up to there is frozen from version 3 on.
    fn decode(mut body: Bytes, own: &Versions) -> Result<Self, Refusal> {
        let newest_protocol = body.try_get_u16().map_err(|_| Refusal::garbled())?;
        let oldest_protocol = body.try_get_u16().map_err(|_| Refusal::garbled())?;
        let spoken = Versions { newest_protocol, oldest_protocol, ..Versions::default() };
        // Before version 3 a hello named one version, and went on otherwise.
        let spoken = if newest_protocol < 3 { Versions { oldest_protocol: newest_protocol, ..spoken } } else { spoken };
        own.agree(&spoken)?;
        let fixed = 4 + 4 + 8 + 8 + 4 + 32;
        if body.len() < fixed {
            return Err(Refusal::garbled());
        }
        let versions = Versions { newest_level: body.get_u32(), oldest_level: body.get_u32(), ..spoken };
        let (node_id, to, shards) = (body.get_u64(), body.get_u64(), body.get_u32());
        let mut challenge = [0; 32];
        body.copy_to_slice(&mut challenge);
        let mut text = || {
            let length = usize::from(body.try_get_u16().map_err(|_| Refusal::garbled())?);
            if body.len() < length {
                return Err(Refusal::garbled());
            }
            String::from_utf8(body.split_to(length).to_vec()).map_err(|_| Refusal::garbled())
        };
        let (cluster_id, disk_id, service_address) = (text()?, text()?, text()?);
        let who = Introduction { cluster_id, node_id, disk_id, shards, service_address, versions };
        Ok(Self { who, to, challenge })
    }
}

impl Secret {
    fn mac(&self, role: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes keys of any length");
        mac.update(role.as_bytes());
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn prove(&self, role: &str, parts: &[&[u8]]) -> Vec<u8> {
        self.mac(role, parts).finalize().into_bytes().to_vec()
    }

    /// Compares in constant time.
    fn verify(&self, role: &str, parts: &[&[u8]], proof: &[u8]) -> Result<(), Refusal> {
        self.mac(role, parts).verify_slice(proof).map_err(|_| {
            let text = "the other side does not know this cluster's secret; check cluster.secret_file on both nodes";
            Refusal::new(RefusalCode::WrongSecret, text)
        })
    }
}

async fn send<W: AsyncWrite + Unpin>(write: &mut W, kind: u8, body: &[u8]) -> Result<(), Refusal> {
    let frame = frame::encode(kind, 0, 0, body.len(), |out| out.put_slice(body));
    write.write_all(&frame).await.map_err(|error| Refusal::broken(&error))?;
    write.flush().await.map_err(|error| Refusal::broken(&error))
}

async fn expect<R: AsyncRead + Unpin>(from: &mut FrameReader<R>, kind: u8) -> Result<Bytes, Refusal> {
    match from.next().await {
        Ok(Some(frame)) if frame.kind == kind => Ok(frame.body),
        Ok(Some(frame)) if frame.kind == REFUSED => Err(Refusal::decode(frame.body)),
        Ok(Some(_)) => Err(Refusal::garbled()),
        Ok(None) => Err(Refusal::broken(&"the connection ended")),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            Err(Refusal::new(RefusalCode::Tls, error.to_string()))
        }
        Err(error) => Err(Refusal::broken(&error)),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
