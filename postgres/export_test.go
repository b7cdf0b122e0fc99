package postgres

// RegisterArrays is what every connection of a Store is taught.
var RegisterArrays = registerArrays
