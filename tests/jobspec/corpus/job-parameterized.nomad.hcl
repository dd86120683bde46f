job "job-parameterized" {
  type = "batch"
  parameterized {
    payload       = "required"
    meta_required = ["budget"]
    meta_optional = ["color", "size"]
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
