"""What the comparison of servers with TLS has besides: certificates, and what figures say together."""

import shutil
import statistics
import subprocess

from servers import BenchError

KINDS = {"ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"), "rsa": ("rsa:2048",)}
CIPHER = {"name": "cipher", "kind": "cipher"}
CALM, FLOOD = "tls-calm", "tls-flood"


def make_certificates(directory):
    """{kind of key: what a server with TLS is called with}. They are good for a day."""
    if not shutil.which("openssl"):
        raise BenchError("openssl is not installed")
    arguments = {}
    for name, kind in KINDS.items():
        certificate, key = (str(directory / f"{name}.{suffix}") for suffix in ("pem", "key"))
        done = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-keyout", key, "-out", certificate,
             "-subj", "/CN=localhost", "-days", "1"],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True)
        if done.returncode != 0:
            raise BenchError(f"openssl makes no certificate: {done.stderr.strip().splitlines()[-1:]}")
        arguments[name] = ["--tls-certificate", certificate, "--tls-key", key]
    return arguments


def median_of(rounds, of):
    """Of what `of` makes of the figures of one round; None where there is no round."""
    values = [of(*figures) for figures in rounds]
    return statistics.median(values) if values else None


def common_rounds(*by_round):
    return [tuple(rounds[number] for rounds in by_round)
            for number in by_round[0] if all(number in rounds for rounds in by_round)]


def add_sums(samples, summary):
    """Adds to the servers with TLS what they are beside plain TCP and the cipher, and under a flood."""
    for workload, by_server in samples.items():
        for name, figures in summary[workload].items():
            plain = by_server.get(name.removesuffix("-tls"), {}) if name.endswith("-tls") else {}
            figures["over_plain_us"] = median_of(
                common_rounds(by_server[name], plain),
                lambda tls, tcp: tls["cpu_us_per_request"] - tcp["cpu_us_per_request"])
            figures["to_plain_and_cipher"] = median_of(
                common_rounds(by_server[name], plain, by_server.get(CIPHER["name"], {})),
                lambda tls, tcp, cipher: tls["cpu_us_per_request"]
                / (tcp["cpu_us_per_request"] + cipher["cpu_us_per_request"]))
    for name, figures in summary.get(FLOOD, {}).items():
        figures["p99_to_calm"] = median_of(
            common_rounds(samples[FLOOD][name], samples.get(CALM, {}).get(name, {})),
            lambda flooded, calm: flooded["p99_us"] / calm["p99_us"])


def lines(figures, depth):
    """For below the table of a workload."""
    found = []
    for name, one in figures.items():
        if one.get("over_plain_us") is not None:
            text = f"{name}: {one['over_plain_us']:+.3f} us beside the same without TLS"
            if one["to_plain_and_cipher"] is not None:
                text += f", {one['to_plain_and_cipher']:.3f} of that and the cipher"
            found.append(text)
    for name, one in figures.items():
        if "records_received" in one and depth > 1:
            found.append(f"{name}: {depth * one['records_sent']:.3f} records from the client and "
                         f"{depth * one['records_received']:.3f} from the server for {depth} requests")
    for name, one in figures.items():
        if one.get("p99_to_calm") is not None:
            found.append(f"{name}: p99 {one['p99_to_calm']:.2f} times that without the flood, of "
                         f"{one.get('flood_handshakes_per_second', 0):.0f} handshakes/s")
    return found
