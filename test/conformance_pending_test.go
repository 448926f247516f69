package test_test

// pending are the parts that cannot hold yet, with the reason. TestConformance
// fails when one holds, so that this list shrinks.
var pending = map[string]string{}
