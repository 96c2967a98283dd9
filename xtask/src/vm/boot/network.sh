# Lays the wire from this machine to the exchanger.
set -e
pid=$(systemctl show --property=MainPID --value exchanger.service)
ip link add wire type veth peer name wire netns "$pid"
nsenter --net="/proc/$pid/ns/net" ip addr add 198.51.100.2/30 dev wire
nsenter --net="/proc/$pid/ns/net" ip link set wire up
ip addr add 198.51.100.1/30 dev wire
mkdir -p /run/lab
# Before the link is up, so that nothing can get through earlier than this says.
cut -d ' ' -f 1 /proc/uptime >/run/lab/network
ip link set wire up
