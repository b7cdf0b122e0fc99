package embedded

// InstallCommandFor opens the choice of the install command to the tests.
var InstallCommandFor = installCommandFor

// BuiltinSettings opens the tuning to the tests.
var BuiltinSettings = builtinSettings
