// Package failpoint names the moments at which a process can die with the most
// to lose: before and after each commit, and between a commit and whoever waits
// for it. Built with the tag "failpoint", a process ends, stops or sleeps there
// when its environment asks for it. Built without it, as everything that is
// shipped is, Reach is empty: the program has neither the points nor what
// would be done there, which test/chaos proves.
package failpoint

// Point is a named moment. Its name is no part of it, so that a program without
// failpoints does not even hold the names.
type Point int

// The points, in the order in which an execution comes by.
const (
	TriggerCommitted     Point = iota // the execution is queued, nobody has been told
	CancelCommitted                   // the wish to cancel is stored, nobody has been told
	ClaimCommitted                    // executions are claimed and do not run yet
	AppendBefore                      // events are about to be stored
	AppendAfter                       // the statement has stored them
	AppendUnacknowledged              // the log knows, no writer and no reader does
	PublishAfter                      // readers have been woken, the writer has not
	ModelBefore                       // the call is on record and is about to be made
	ModelAfter                        // the model has answered, its answer is not closed
	PromptCompleteBefore              // the last events of a prompt are about to go to the log
	PromptCompleteAfter               // the log has them, perhaps not stored
	RenewCommitted                    // leases are prolonged, their owner does not know
	TerminalBefore                    // the last event is about to go to the log
	TerminalAfter                     // it is stored, the lease is given up
	ReleaseBefore                     // an interrupted execution still has its lease
	ReleaseAfter                      // its lease is given back, the process has not ended
	UpkeepBefore                      // the database is about to be looked after
	UpkeepAfter                       // it has been

	// Those of a document.
	UploadCommitted       // a document is queued, nobody has been told
	IngestBegun           // it is about to be taken apart
	ChunksBefore          // its passages are about to be stored
	ChunksAfter           // they are, without vectors
	VectorsAfter          // some of their vectors are stored
	PublishDocumentBefore // all are, and searches do not see it yet
	PublishDocumentAfter  // they do, the queue does not know
	SpaceBefore           // a repository is about to be searched by another model
	SpaceAfter            // it is, the queue does not know

	// Those of a document that is fetched, besides.
	FetchedBefore // it is here, and about to be stored or found to be what is there already
	FetchedAfter  // it is stored, or nothing is left to be done
	points
)

// String answers the name that the environment knows.
func (p Point) String() string {
	return [points]string{
		"trigger.committed", "cancel.committed", "claim.committed", "append.before", "append.after", "append.unacknowledged", "publish.after",
		"model.before", "model.after", "prompt-complete.before", "prompt-complete.after", "renew.committed", "terminal.before", "terminal.after",
		"release.before", "release.after", "upkeep.before", "upkeep.after",
		"upload.committed", "ingest.begun", "chunks.before", "chunks.after", "vectors.after", "publish-document.before", "publish-document.after",
		"space.before", "space.after", "fetched.before", "fetched.after",
	}[p]
}

// Points answers those of executions and of the server.
func Points() []Point { return between(TriggerCommitted, UploadCommitted) }

// DocumentPoints answers those of documents that are sent.
func DocumentPoints() []Point { return between(UploadCommitted, FetchedBefore) }

// FetchPoints answers those that only documents come by that are fetched.
func FetchPoints() []Point { return between(FetchedBefore, points) }

func between(first, end Point) []Point {
	var all []Point
	for p := first; p < end; p++ {
		all = append(all, p)
	}
	return all
}

// The environment of a process that was built with the tag.
const (
	// EnvActions says what to do: POINT=ACTION@N, several separated by commas,
	// where ACTION is kill, stop (SIGSTOP) or sleep:DURATION and N counts the
	// visits of the point from 1.
	EnvActions = "CHAINSTREAM_FAILPOINTS"
	// EnvVisits names a file that takes a line for the first visit of each
	// point, "visit POINT PID", and one for each action, "fire POINT PID".
	EnvVisits = "CHAINSTREAM_FAILPOINT_VISITS"
)
