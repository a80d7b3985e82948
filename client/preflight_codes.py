"""What `wardround hospital check` can say: one finding a line, and the table of everything that can be wrong.

A check that finds nothing wrong reports its own name; anything else is a code of `FAULTS`. Codes are stable, so that
a hospital's monitoring may rely on them, and `client/README.md` prints this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from client.visible import shown

OK, WARNING, WRONG = "ok", "warning", "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found; its sentence may hold exact numbers, for the hospital's own screen only."""

    code: str  # the check's name, or one of FAULTS
    sentence: str

    @property
    def level(self) -> str:
        """OK, WARNING or WRONG."""
        return FAULTS[self.code][0] if self.code in FAULTS else OK

    @property
    def remedy(self) -> str:
        """What to do about it, or ""."""
        return FAULTS[self.code][1] if self.code in FAULTS else ""

    def line(self) -> str:
        """Return it in one line; words of others in it cannot move a terminal's cursor."""
        text = f"{self.level:<8} {self.code}: {shown(self.sentence)}"
        return f"{text}. To do: {self.remedy}" if self.remedy else text


FAULTS: dict[str, tuple[str, str]] = {  # code -> (level, what to do)
    "settings.wrong": (WRONG, "correct that line of hospital.toml; `wardround hospital check` again"),
    "settings.sample": (WRONG, "edit that line of hospital.toml: it goes on the record, for ever"),
    "folder.owner": (WRONG, "run the agent as the owner of the folder, or `chown -R` the folder to its user"),
    "folder.writable": (WRONG, "`chmod 700` it: whoever may write in it can replace a key or the settings"),
    "folder.open": (WARNING, "`chmod 700` it: it holds keys, rows and the privacy account"),
    "keys.missing": (WRONG, "restore the file from a backup; a key that is lost is replaced by an amendment"),
    "keys.open": (WRONG, "`chmod 600` the file, and replace the key if anybody else has read it"),
    "keys.owner": (WRONG, "`chown` the file to the owner of the folder"),
    "keys.kind": (WRONG, "restore the right file from a backup: keys of different uses are not exchangeable"),
    "authority.wrong": (WRONG, "copy ca.pem again from the invitation; it is no secret"),
    "authority.expired": (WRONG, "ask whoever runs the coordinator for its new ca.pem"),
    "authority.expires": (WARNING, "ask whoever runs the coordinator for its new ca.pem before that day"),
    "person.waits": (
        WRONG,
        "find out why (was the folder restored from a backup?), then `wardround hospital resume DIR`",
    ),
    "person.damaged": (WRONG, "restore standing.json from a backup, or ask the consortium for help"),
    "copy.damaged": (
        WRONG,
        "stop the agent, move the mirror folder away: the next start fetches the log anew",
    ),
    "copy.charter": (
        WRONG,
        "compare `charter` in hospital.toml by telephone; use a new folder for another one",
    ),
    "copy.key": (
        WRONG,
        "restore keys/ from the newest backup, or have the new key put on the log (amendment)",
    ),
    "copy.member": (
        WARNING,
        "ask whoever runs the coordinator whether this hospital was admitted or removed",
    ),
    "account.damaged": (
        WRONG,
        "restore account.sqlite from a backup; the agent then charges the worst and asks",
    ),
    "dictionary.wrong": (WRONG, "copy the data dictionary again from the consortium, unchanged"),
    "data.unusable": (WRONG, "correct the file, or `dataset` in hospital.toml; the file is only ever read"),
    "data.size-class": (WRONG, "set dataset.size_class in hospital.toml to that number: it will be public"),
    "data.dropped": (WARNING, "correct the values, or accept that these rows never take part"),
    "data.clipped": (
        WARNING,
        "look for another unit or typing errors; values are cut to the plausible range",
    ),
    "data.mapping": (WARNING, "correct the mapping file, or list that value in it"),
    "data.open": (WARNING, "`chmod 600` the file and `chown` it to the user that the agent runs as"),
    "disk.full": (WRONG, "free some space, or move the folder to a larger disk"),
    "disk.fails": (WRONG, "mount the disk writable, check its health and quota, and who owns the folder"),
    "memory.small": (WRONG, "lower limits.memory_mib in hospital.toml, or give the machine more memory"),
    "memory.busy": (WARNING, "stop what else uses memory, or lower limits.memory_mib in hospital.toml"),
    "processors.few": (WARNING, "lower limits.threads in hospital.toml, or give the machine more processors"),
    "software.missing": (WRONG, "`pip install -c constraints.txt '.[hospital]'` in the agent's environment"),
    "software.version": (WRONG, "`pip install -c constraints.txt '.[hospital]'`: jobs name exact versions"),
    "torch.fails": (
        WRONG,
        "`pip install --force-reinstall` torch; else this processor is too old for it",
    ),
    "torch.gpu": (WRONG, "install the driver and the CUDA build of torch, or set limits.gpu = false"),
    "sandbox.missing": (
        WARNING,
        "enable that in the kernel or the container: jobs with code of their own need it",
    ),
    "name.unknown": (WRONG, "correct the host name in hospital.toml, or have it put in your DNS"),
    "name.silent": (WRONG, "check this machine's name server (/etc/resolv.conf) and the firewall to it"),
    "port.refused": (WRONG, "check the port in hospital.toml; ask whoever runs the coordinator if it is up"),
    "port.silent": (
        WRONG,
        "have your firewall allow outbound TCP to this host and port, nothing else is needed",
    ),
    "port.route": (WRONG, "check this machine's network: its address, gateway and routes"),
    "port.failed": (WRONG, "check this machine's network and its local firewall"),
    "proxy.unreachable": (WRONG, "check `proxy` in hospital.toml with whoever runs your proxy"),
    "proxy.password": (
        WRONG,
        'state it as proxy = "http://user:password@host:port", or have this host exempted',
    ),
    "proxy.forbidden": (WRONG, "have the proxy allow CONNECT to this host and port"),
    "proxy.answer": (WRONG, "check `proxy` in hospital.toml: that port is no HTTP proxy"),
    "tls.intercepted": (WRONG, "exempt this host from TLS inspection; nothing was sent, and nothing will be"),
    "tls.authority": (WRONG, "ask whoever runs the coordinator, by telephone, whether ca.pem was replaced"),
    "tls.expired": (
        WRONG,
        "check this machine's clock; if it is right, the coordinator must renew (restart it)",
    ),
    "tls.early": (WRONG, "set this machine's clock (NTP): it is behind"),
    "tls.name": (
        WRONG,
        "use the name that the coordinator gave out, or have it add this one (`public_name`)",
    ),
    "tls.version": (WRONG, "look for an old proxy or firewall in between: TLS 1.2 or later is needed"),
    "tls.none": (WRONG, "check host and port: what answers there does not speak TLS"),
    "tls.silent": (WRONG, "look for a firewall that lets connections begin and then drops them"),
    "service.other": (WRONG, "check host and port in hospital.toml: that is no Wardround coordinator"),
    "service.waits": (WARNING, "wait; the agent may be started, and goes on when the coordinator does"),
    "service.down": (WRONG, "wait, or ask whoever runs the coordinator; the agent tries again by itself"),
    "service.refused": (WRONG, "ask whoever runs the coordinator whether this hospital's key is admitted"),
    "charter.other": (
        WRONG,
        "compare `charter` in hospital.toml by telephone: do not start before it agrees",
    ),
    "clock.off": (WARNING, "set the clock by NTP (`timedatectl set-ntp true`)"),
    "clock.wrong": (
        WRONG,
        "set the clock by NTP (`timedatectl set-ntp true`): no round is accepted until then",
    ),
    "clock.unknown": (WARNING, "compare the clock by hand; it must be right within a minute"),
    "checkpoint.none": (WARNING, "wait until enough hospitals have cosigned; the agent may be started"),
    "checkpoint.old": (WARNING, "ask whoever runs the coordinator: are enough hospitals cosigning?"),
}
