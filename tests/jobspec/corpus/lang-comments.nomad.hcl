# A comment
// another one
/* and
   a long one */
job "lang-comments" { # behind a brace
  type = "batch"      // behind a value

  group "app" {
    /* inside */
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/echo" # not a "#" in text: below
        args    = ["# no comment", "// none", "/* none */"]
      }
    }
  }
}
