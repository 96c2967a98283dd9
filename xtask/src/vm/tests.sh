# Runs every test executable, one after the other: they share the kernel's hooks, and some measure.
# The arguments are the test harness's own: a filter, `--nocapture`.
ran=0 failed=0
: >"$PORTREEVE_SKIPS"
for test in /opt/lab/release/deps/*; do
    echo "==> ${test##*/}"
    "$test" --test-threads=1 "$@" || failed=$((failed + 1))
    ran=$((ran + 1))
done
sed 's/^/skipped: /' "$PORTREEVE_SKIPS"
echo "portreeve-vm: end ran=$ran failed=$failed"
