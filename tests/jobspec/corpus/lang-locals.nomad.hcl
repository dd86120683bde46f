locals {
  url  = "${local.scheme}://${local.host}"
  host = "example.org"
}

locals {
  scheme = "https"
  all    = { a = local.host, b = [1, 2] }
}

job "lang-locals" {
  meta {
    url = local.url
    all = jsonencode(local.all)
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
