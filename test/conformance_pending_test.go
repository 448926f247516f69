package test_test

// pending are the parts that cannot hold yet, with the reason. TestConformance
// fails when one holds, so that this list shrinks.
var pending = map[string]string{
	"C26/variables of the app": "an app has no variables of the operator yet",

	"C29/secret": "an app has no secrets yet",

	"C46/none": "the operator cannot choose a build without network yet",
}
