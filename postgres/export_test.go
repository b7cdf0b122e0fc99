package postgres

// RegisterArrays is what every connection of a Store is taught.
var RegisterArrays = registerArrays

// LogSettings is what a connection of the log and the queue is set to.
const LogSettings = logSettings

// MakeIndex makes the index of a space by a statement.
var MakeIndex = makeIndex
