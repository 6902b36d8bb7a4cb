//! A network namespace for each seat, and one in the middle that routes between them and to the clients.
//!
//! Every packet between two ends crosses the middle, so all faults are rules there: of iptables for cut and lossy ways, of tc
//! for slow ones. Nothing of the machine's own network changes but one interface and one route more.

use std::{net::Ipv4Addr, path::Path, process::Command};

use super::{
    network::{End, Fault},
    seat::Addresses,
};

/// Networks that are tried: 10.100.0.0/16 and so on.
const FIRST: u8 = 100;
const COUNT: u32 = 100;

/// Dropping it takes everything away again.
pub(crate) struct Namespaces {
    /// How their names begin. The process id in it tells later runs whether it may be swept away.
    tag: String,
    /// The second part of all addresses.
    network: u8,
    seats: usize,
    /// What a packet filter understands here.
    iptables: &'static str,
    delay: Delay,
}

/// How this kernel can slow a way down.
#[derive(Debug, Clone, Copy)]
enum Delay {
    /// Every packet takes longer.
    Netem,
    /// Packets queue up behind a narrow place.
    Narrow,
}

impl Namespaces {
    pub(super) fn make(seats: usize) -> Result<Self, String> {
        sweep();
        let tag = format!("tandem-chaos-{}", std::process::id());
        let mut why = String::new();
        for turn in 0..COUNT {
            let network = FIRST + ((std::process::id() + turn) % COUNT) as u8;
            match lay(&tag, network, seats) {
                Ok(()) => {
                    let made = Self { tag, network, seats, iptables: "iptables", delay: Delay::Narrow };
                    return made.with_what_the_kernel_has();
                }
                // Somebody else has this one, perhaps a run beside this.
                Err(error) if error.contains("File exists") => why = error,
                Err(error) => return Err(error),
            }
        }
        Err(why)
    }

    fn with_what_the_kernel_has(mut self) -> Result<Self, String> {
        let filter = "-A FORWARD -m statistic --mode random --probability 0.5 -s 10.255.255.255 -j DROP";
        let works = |name: &&str| {
            let rules = format!("*filter\n{filter}\nCOMMIT\n");
            self.in_the_middle(&format!("{name}-restore <<'RULES'\n{rules}RULES")).is_ok()
        };
        let found = ["iptables", "iptables-legacy", "iptables-nft"].into_iter().find(|name| works(name));
        self.iptables = found.ok_or("no iptables that works here")?;
        let netem = self.in_the_middle("tc qdisc add dev s1 root netem delay 1ms && tc qdisc del dev s1 root");
        self.delay = if netem.is_ok() { Delay::Netem } else { Delay::Narrow };
        self.apply(&[]);
        Ok(self)
    }

    pub(super) fn addresses(&self, seat: usize) -> Addresses {
        let address = |port: u16| (self.address(End::Seat(seat)), port).into();
        Addresses { grpc: address(8001), metrics: address(9001), peer: address(7001) }
    }

    fn address(&self, end: End) -> Ipv4Addr {
        let third = match end {
            End::Seat(seat) => seat as u8 + 1,
            End::Clients => 0,
        };
        Ipv4Addr::new(10, self.network, third, 2)
    }

    pub(super) fn command(&self, seat: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{}", self.tag, seat + 1)]).arg(program);
        command
    }

    pub(super) fn apply(&self, faults: &[Fault]) {
        let mut rules = String::from("*filter\n:FORWARD ACCEPT\n");
        let mut slow = vec![false; self.seats];
        for fault in faults {
            match *fault {
                Fault::Cut(from, to) => {
                    rules += &format!("-A FORWARD -s {} -d {} -j DROP\n", self.address(from), self.address(to));
                }
                Fault::Lossy(from, to, percent) => {
                    let (from, to, part) = (self.address(from), self.address(to), f64::from(percent) / 100.0);
                    let random = format!("-m statistic --mode random --probability {part}");
                    rules += &format!("-A FORWARD -s {from} -d {to} {random} -j DROP\n");
                }
                Fault::Slow(seat) => slow[seat] = true,
            }
        }
        rules += "COMMIT\n";
        let mut script = format!("{}-restore <<'RULES'\n{rules}RULES\n", self.iptables);
        let how = match self.delay {
            Delay::Netem => "netem delay 40ms 20ms",
            Delay::Narrow => "tbf rate 2mbit burst 16kb latency 200ms",
        };
        for (seat, slow) in slow.into_iter().enumerate() {
            let side = |device: String| match slow {
                true => format!("tc qdisc replace dev {device} root {how}\n"),
                false => format!("tc qdisc del dev {device} root 2>&- || true\n"),
            };
            script += &side(format!("s{}", seat + 1));
            // The other half of the way begins in the namespace of the seat.
            script += &format!("ip netns exec {}-{} {}", self.tag, seat + 1, side("e".to_owned()));
        }
        self.in_the_middle(&script).unwrap_or_else(|error| panic!("the network cannot be changed: {error}"));
    }

    fn in_the_middle(&self, script: &str) -> Result<(), String> {
        let script = format!("set -e\n{script}");
        output(Command::new("ip").args(["netns", "exec", &format!("{}-middle", self.tag), "sh", "-c", &script]))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(&self.tag);
    }
}

fn lay(tag: &str, network: u8, seats: usize) -> Result<(), String> {
    let device = format!("tdchaos{network}");
    let mut script = format!(
        "set -e
        ip netns add {tag}-middle
        middle='ip netns exec {tag}-middle'
        ip link add {device} type veth peer name clients netns {tag}-middle
        ip addr add 10.{network}.0.2/24 dev {device}
        ip link set {device} up
        ip route add 10.{network}.0.0/16 via 10.{network}.0.1
        $middle ip addr add 10.{network}.0.1/24 dev clients
        $middle ip link set clients up
        $middle ip link set lo up
        $middle sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'\n"
    );
    for seat in 1..=seats {
        script += &format!(
            "ip netns add {tag}-{seat}
            ip link add e netns {tag}-{seat} type veth peer name s{seat} netns {tag}-middle
            $middle ip addr add 10.{network}.{seat}.1/24 dev s{seat}
            $middle ip link set s{seat} up
            seat='ip netns exec {tag}-{seat}'
            $seat ip addr add 10.{network}.{seat}.2/24 dev e
            $seat ip link set e up
            $seat ip link set lo up
            $seat ip route add default via 10.{network}.{seat}.1\n"
        );
    }
    output(Command::new("sh").args(["-c", &script])).inspect_err(|_| remove(tag))
}

fn remove(tag: &str) {
    // The interface of the clients goes with its other end.
    let script = r#"for name in $(ip netns list 2>&- | cut -d' ' -f1 | grep "^$0-"); do ip netns del "$name"; done"#;
    output(Command::new("sh").args(["-c", script, tag])).ok();
}

/// Takes away what runs have left that were killed.
fn sweep() {
    let script = r#"for name in $(ip netns list 2>&- | cut -d' ' -f1 | grep '^tandem-chaos-'); do
        pid=${name#tandem-chaos-}; [ -d "/proc/${pid%-*}" ] || ip netns del "$name"; done"#;
    output(Command::new("sh").args(["-c", script])).ok();
}

/// Runs it; what it wrote is the error.
fn output(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
