//go:build !linux

package embedded

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
)

// processesOf finds the postmaster of a data directory by its command line.
// Processes that lost their postmaster end by themselves, and PostgreSQL
// refuses to start until they did.
func processesOf(ctx context.Context, dataDir string) ([]process, error) {
	out, err := exec.CommandContext(ctx, "ps", "-axww", "-o", "pid=,command=").Output()
	if err != nil {
		return nil, err
	}
	var found []process
	for line := range strings.Lines(string(out)) {
		number, command, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.Contains(command, "postgres") || !strings.Contains(command, "-D "+dataDir) {
			continue
		}
		pid, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		found = append(found, process{pid: pid, postmaster: true, ours: strings.Contains(command, ownerParameter+"=")})
	}
	return found, nil
}
