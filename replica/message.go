package replica

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Hint is what a process has to tell. The zero Hint is nothing.
type Hint struct {
	Grown  []int64 // executions whose log has grown
	Cancel []int64 // executions that are to be stopped
	Queue  bool    // an execution can be claimed
	All    bool    // more than fits into a message, or some were missed: look at everything
}

// gathered is a hint in the making.
type gathered struct {
	grown, cancel map[int64]struct{}
	queue, all    bool
}

func (g *gathered) empty() bool {
	return len(g.grown) == 0 && len(g.cancel) == 0 && !g.queue && !g.all
}

// gather adds an execution to a set, unless the hint is about everything or is
// going to be. A message never has room for mostGathered.
func (g *gathered) gather(set *map[int64]struct{}, execution int64) {
	if g.all {
		return
	}
	if *set == nil {
		*set = make(map[int64]struct{})
	}
	(*set)[execution] = struct{}{}
	if len(*set) > mostGathered {
		*g = gathered{all: true}
	}
}

const mostGathered = MessageBytes / 2

// MessageBytes is the most that a message has. PostgreSQL takes less than 8,000
// bytes as the payload of a notification.
const MessageBytes = 7900

// A message is a line of words: the version of this format, the sender, and what
// there is to tell: "all", "queue", "grown" or "cancel" with the ids behind a
// colon, in rising order, each as the difference to the one before, to base 36.
//
//	1 K7QXN2ZP3VJ4A queue grown:9c,1,1,4 cancel:9d
const (
	formatVersion = "1"
	idBase        = 36
	senderBytes   = 32 // the most that a sender's name may have
)

// encode writes a message; what does not fit becomes "all".
func (g *gathered) encode(sender string) []byte {
	b := make([]byte, 0, 256)
	b = append(b, formatVersion+" "...)
	b = append(b, sender...)
	head := len(b)
	if g.queue {
		b = append(b, " queue"...)
	}
	b = appendIDs(b, " grown:", g.grown)
	b = appendIDs(b, " cancel:", g.cancel)
	if g.all || len(b) > MessageBytes {
		b = append(b[:head], " all"...)
	}
	return b
}

func appendIDs(b []byte, word string, set map[int64]struct{}) []byte {
	previous := int64(0)
	for i, id := range slices.Sorted(maps.Keys(set)) {
		if i == 0 {
			b = append(b, word...)
		} else {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id-previous, idBase)
		previous = id
	}
	return b
}

// decode reads a message. What cannot be read is no message; words of a later
// version are passed over.
func decode(message []byte) (sender string, h Hint, ok bool) {
	if len(message) > MessageBytes {
		return "", h, false
	}
	words := strings.Split(string(message), " ")
	if len(words) < 2 || words[0] != formatVersion || words[1] == "" || len(words[1]) > senderBytes {
		return "", h, false
	}
	for _, word := range words[2:] {
		name, list, _ := strings.Cut(word, ":")
		switch name {
		case "all":
			h.All = true
		case "queue":
			h.Queue = true
		case "grown":
			h.Grown, ok = parseIDs(list)
		case "cancel":
			h.Cancel, ok = parseIDs(list)
		default:
			continue
		}
		if (name == "grown" || name == "cancel") && !ok {
			return "", Hint{}, false
		}
	}
	return words[1], h, true
}

func parseIDs(list string) ([]int64, bool) {
	fields := strings.Split(list, ",")
	ids := make([]int64, len(fields))
	previous := int64(0)
	for i, field := range fields {
		step, err := strconv.ParseInt(field, idBase, 64)
		if err != nil || step <= 0 || previous+step < previous {
			return nil, false
		}
		previous += step
		ids[i] = previous
	}
	return ids, true
}
