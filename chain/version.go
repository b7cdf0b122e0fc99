package chain

import (
	"errors"
	"time"
)

// Version is one immutable version of a stored chain.
type Version struct {
	ChainID   int64
	Version   int // 1, 2, 3 …
	Chain     *Chain
	PromptIDs []int64   // PromptIDs[i] is the id of Chain.Prompts[i]; a prompt keeps its id as long as its slug stays
	CreatedAt time.Time // of this version
	Newest    int       // the chain's newest version
}

// Summary is an entry of a chain's list of versions.
type Summary struct {
	Version     int
	Description string
	CreatedAt   time.Time
}

// Errors about stored chains.
var (
	ErrNotFound  = errors.New("no such chain")
	ErrNameTaken = errors.New("a chain with this name exists")
)
