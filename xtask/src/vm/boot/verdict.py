# Waits until the network has been there for a while, or until it is clear that it will not come; then tells the facts.
import json, shutil, subprocess, sys, time

# Seconds that the bot has once there is a network, and seconds after which there will be none.
TRIAL, PATIENCE = 8, 75


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lines(name):
    try:
        with open("/run/lab/" + name) as file:
            # The last one may be half written.
            return [line.split() for line in file.read().split("\n")[:-1]]
    except FileNotFoundError:
        return []


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def fact(name, value):
    print(f"portreeve-vm: fact {name}={value}", flush=True)


start = now()
while not lines("network") and now() - start < PATIENCE:
    time.sleep(0.1)
if lines("network"):
    time.sleep(TRIAL)

attempts = [(float(when), outcome) for when, outcome in lines("attempts")]
network = [float(when) for [when] in lines("network")]
refused = [when for when, outcome in attempts if outcome in ("EPERM", "EACCES")]
if attempts:
    fact("first_attempt_at", attempts[0][0])
if refused:
    fact("first_refusal_at", refused[0])
if network:
    fact("network_at", network[0])
for when, phase in ((lambda t: not network or t < network[0], "before"), (lambda t: network and t >= network[0], "after")):
    counts = {}
    for began, outcome in attempts:
        if when(began):
            counts[outcome] = counts.get(outcome, 0) + 1
    for outcome, count in sorted(counts.items()):
        fact(f"{phase}_network.{outcome}", count)
fact("accepted", len(lines("accepted")))
for unit in sys.argv[1:] or run("systemctl", "list-unit-files", "--no-legend", "--plain", "portreeve*.service").split("\n"):
    unit = unit.split(" ")[0]
    if unit:
        state = dict(line.split("=", 1) for line in run("systemctl", "show", unit).split("\n") if "=" in line)
        fact(unit, state.get("ActiveState", "unknown"))
        print(f"    {unit}: {state.get('ActiveState')}, {state.get('SubState')}, {state.get('Result')},"
              f" restarted {state.get('NRestarts', '0')} times, wanted by {state.get('WantedBy', 'nobody')}")
# In one of the boots there is no agent.
status = run("portreeve", "status", "--json") if shutil.which("portreeve") else ""
if status.startswith("{"):
    status = json.loads(status)
    fact("agent.state", status["state"])
    fact("agent.files_read_only", str(status["rights"]["files_read_only"]).lower())
    fact("agent.seccomp", str(status["rights"]["seccomp"]).lower())
    print("    the agent holds", ", ".join(status["rights"]["capabilities"]))
    print("    its hooks:", ", ".join(hook["name"] + " " + hook["state"] for hook in status["hooks"]))
print("    the system is", run("systemctl", "is-system-running").strip())
print(run("systemctl", "list-jobs", "--no-pager").rstrip())
print(run("journalctl", "-b", "--no-pager", "-o", "short-monotonic", "-n", "60", "-u", "portreeve*").rstrip())
print("portreeve-vm: end ran=1 failed=0", flush=True)
with open("/proc/sysrq-trigger", "w") as trigger:
    trigger.write("o")
time.sleep(60)
