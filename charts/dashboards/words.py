# SPDX-License-Identifier: Apache-2.0
"""What findings are called; the README says the same."""

FINDINGS = {
    "C01": "the kernel is too old",
    "C02": "enabled without effect",
    "C03": "the devices cannot",
    "C04": "one device spoils it for all",
    "C05": "legacy host routing, iptables, kube-proxy or a tunnel",
    "C06": "pods that were not restarted",
    "C07": "a raised device is lower again",
    "C08": "cut in software by a kernel's mistake",
    "C09": "cut in software by a device",
    "C10": "a tunnel device, or DSR by tunnel",
    "C12": "configuration changed, Cilium not restarted",
    "C13": "IPv6 packets too big to be forwarded",
    "C14": "traffic, but nothing big",
    "C15": "GRO merges nothing",
    "C18": "encryption",
    "C19": "pods from before netkit",
    "C22": "Cilium does not answer",
    "C25": "packets that could not be counted",
}
