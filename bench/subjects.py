"""The proxies that are compared, each started before the same two shards.

A peer is a command the user gives. In the command, and in its templates,

    {port} {shard1} {shard2}   are the ports to listen on and to connect to
    {config} {config2} ...     are the templates of this peer, filled in
    {directory}                is a directory of its own for what it writes
"""
import dataclasses
import os
import shlex
from typing import Optional

import processes

KEYFERRY = "keyferry"
NULL_MUX = "null mux"
NUTCRACKER = "nutcracker"
TWO_WORKERS = "keyferry, 2 workers"
NO_PROXY = "no proxy"


@dataclasses.dataclass
class Peer:
    name: str
    command: str
    port: Optional[int]
    templates: list

    def start(self, directory, ports, cpus):
        port = self.port or processes.free_port()
        place = os.path.join(directory, "%s-%d" % (self.name, port))
        os.makedirs(place)
        words = {"port": port, "shard1": ports[0], "shard2": ports[1], "directory": place}
        for number, template in enumerate(self.templates, 1):
            name = "config" if number == 1 else "config%d" % number
            path = os.path.join(place, os.path.basename(template))
            with open(template) as text:
                processes.write_lines(path, [filled(text.read(), words)])
            words[name] = path
        argv = [filled(word, words) for word in shlex.split(self.command)]
        # Where we were started, so that paths mean what the user meant.
        return processes.Process(self.name, argv, port, place, cpus, os.getcwd())


def filled(text, words):
    """Not `str.format`: configurations have braces of their own."""
    for name, value in words.items():
        text = text.replace("{%s}" % name, str(value))
    return text


def named(option, texts):
    """NAME=TEXT, as often as given."""
    pairs = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest:
            raise SystemExit("%s %s: NAME=... is wanted" % (option, text))
        pairs.append((name, rest))
    return pairs


def peers(arguments):
    ports = dict(named("--peer-port", arguments.peer_port))
    templates = named("--peer-template", arguments.peer_template)
    found = []
    for name, command in named("--peer", arguments.peer):
        mine = [os.path.abspath(path) for owner, path in templates if owner == name]
        port = int(ports[name]) if name in ports else None
        if port is None and not any("{port}" in text for text in [command, *map(read, mine)]):
            raise SystemExit("peer %s: where does it listen? give --peer-port %s=PORT, or write {port} "
                             "in its command or template" % (name, name))
        if mine and "{config}" not in command:
            command += " {config}"
        found.append(Peer(name, command, port, mine))
    unknown = {name for name, _ in templates} | set(ports)
    unknown -= {peer.name for peer in found}
    if unknown:
        raise SystemExit("no --peer of this name: %s" % ", ".join(sorted(unknown)))
    return found


def read(path):
    with open(path) as file:
        return file.read()


class Subjects:
    """All proxies of one kind of load, running."""

    def __init__(self, place, load, arguments, rows):
        self.place = place
        self.null_muxes = {}
        self.proxies = {}
        ports = arguments.shard_ports or [processes.free_port(), processes.free_port()]
        self.shards = load.start_shards(place, ports)
        starters = self.starters(ports, arguments, load.name)
        unknown = set(arguments.without) - {*starters, NULL_MUX, NO_PROXY}
        if unknown:
            raise SystemExit("--without %s: of %s" % (", ".join(unknown), ", ".join([*starters, NULL_MUX, NO_PROXY])))
        for name, start in starters.items():
            if name not in arguments.without:
                self.proxies[name] = place.keep(start())
                load.fill(self.proxies[name])
        if load.name == "canned" and NULL_MUX not in arguments.without:
            for row in rows:
                self.null_muxes[row.name] = place.keep(null_mux(place.directory, ports, row, arguments))

    def starters(self, ports, arguments, load_name):
        one = arguments.proxy_cpus if load_name == "canned" else None
        directory = self.place.directory
        shards = [Address(port) for port in ports]
        binary = os.path.abspath(arguments.keyferry)
        starters = {
            KEYFERRY: lambda: processes.keyferry(binary, directory, shards, 1, one),
            TWO_WORKERS: lambda: processes.keyferry(binary, directory, shards, 2),
            NUTCRACKER: lambda: processes.nutcracker(directory, shards, cpus=one),
            NUTCRACKER + " -m 1024": lambda: processes.nutcracker(directory, shards, "-m", "1024", cpus=one),
        }
        for peer in arguments.peers:
            starters[peer.name] = lambda peer=peer: peer.start(directory, ports, one)
        if load_name == "redis":
            starters[NO_PROXY] = lambda: processes.redis_server(directory)
        return starters

    def names(self):
        """As the columns of the tables."""
        return [*self.proxies, *([NULL_MUX] if self.null_muxes else [])]

    def proxy(self, name, row):
        return self.null_muxes[row.name] if name == NULL_MUX else self.proxies[name]

    def peak_memory_bytes(self):
        peaks = {name: proxy.peak_memory_bytes() for name, proxy in self.proxies.items() if name != NO_PROXY}
        if self.null_muxes:
            peaks[NULL_MUX] = max(mux.peak_memory_bytes() for mux in self.null_muxes.values())
        return peaks


@dataclasses.dataclass
class Address:
    port: int


def null_mux(directory, ports, row, arguments):
    port = processes.free_port()
    request_bytes, reply_bytes, shard_byte = row.frames()
    return processes.Process("null_mux", [
        os.path.join(arguments.examples, "null_mux"), "--port", str(port), "--shards", ",".join(map(str, ports)),
        "--request-bytes", str(request_bytes), "--reply-bytes", str(reply_bytes), "--shard-byte", str(shard_byte),
    ], port, directory, arguments.proxy_cpus)
